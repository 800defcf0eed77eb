import logging
import sys
from pathlib import Path

import anyio
from clerk_plugin import Clerk

from pyvider_rpcplugin import ReattachConfig, SecurityError, plugin_client

PLUGIN = Path(__file__).with_name("clerk_plugin.py")


async def main() -> None:
    async with plugin_client(
        [sys.executable, str(PLUGIN)],
        client_cert="certs/host.crt",
        client_key="certs/host.key",
        server_root_certs="certs/ca.crt",
    ) as client:
        print(await client.proxy(Clerk).greet())
        await intrude(client.reattach_config())


async def intrude(where: ReattachConfig) -> None:
    """Knock at a plugin that runs, with a certificate of another authority."""
    try:
        async with plugin_client(
            reattach=where,
            client_cert="elsewhere/host.crt",
            client_key="elsewhere/host.key",
            server_root_certs="certs/ca.crt",
        ) as stranger:
            print(await stranger.proxy(Clerk).greet())
    except SecurityError as error:
        print("A stranger:", error)


if __name__ == "__main__":
    logging.basicConfig(filename="own_ca.log")  # The plugin says there whom it has refused.
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
