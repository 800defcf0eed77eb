import sys
from pathlib import Path

import anyio
from greeter_plugin import Greeter  # or a typing.Protocol with the same methods

from pyvider_rpcplugin import plugin_client

PLUGIN = Path(__file__).with_name("greeter_plugin.py")


async def main() -> None:
    async with plugin_client([sys.executable, str(PLUGIN)]) as client:
        greeter = client.proxy(Greeter)
        print(await greeter.hello("Ada", loud=True))
        async for n in greeter.countdown(3):
            print(n)


if __name__ == "__main__":
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
