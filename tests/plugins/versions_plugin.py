"""A plugin of several versions, on the loop of its first argument.

The second names the versions; each has services that the others do not have, registered in one of
the ways there are.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from grpclib.const import Cardinality, Handler

from pyvider_rpcplugin import RPCPluginProtocol, context, plugin_protocol, plugin_server
from tests.plugins.misc_plugin import Text


class Numbered:
    """Says which version it was asked in, and which one it is."""

    def __init__(self, own: int) -> None:
        self.own = own

    async def _which(self, stream) -> None:
        await stream.recv_message()
        told = context().negotiated_version, server.negotiated_version
        await stream.send_message(Text(f"{self.own} {told}"))

    def __mapping__(self):
        path = f"/numbered.V{self.own}/Which"
        return {path: Handler(self._which, Cardinality.UNARY_UNARY, Text, Text)}


class Own(RPCPluginProtocol):
    async def get_grpc_descriptors(self):
        return None, "numbered"

    async def add_to_server(self, server, handler) -> None:
        server.add_service(handler)


def register(handler, server) -> None:
    server.add_service(handler)


async def which(channel, version: int) -> str:
    async with channel.request(
        f"/numbered.V{version}/Which", Cardinality.UNARY_UNARY, Text, Text
    ) as stream:
        await stream.send_message(Text(), end=True)
        return (await stream.recv_message()).text


WAYS = {
    1: Numbered(1),
    2: (plugin_protocol("numbered", servicer_add_fn=register), Numbered(2)),
    3: Own(),  # with handler=
    4: (None, Numbered(4)),
}

if __name__ == "__main__":
    versions = {int(version): WAYS[int(version)] for version in sys.argv[2].split(",")}
    server = plugin_server(versions, Numbered(3))
    server.run(backend="trio" if sys.argv[1] == "trio" else "asyncio")
