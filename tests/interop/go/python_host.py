"""What hosts in Python need for a plugin in Go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.client import RPCPluginClient

from .proto.peer_grpc import AdderBase
from .proto.peer_pb2 import Pair, RepeatRequest, Sum

# Asks for one message, and for a stream that then stays open.
HANG = RepeatRequest(pair=Pair(), count=1, hang=True)
LARGE = b"0123456789abcdef" * (4 << 20)


def go_plugin(
    folder: Path, *options: str, versions: str = "1", mtls: bool = True, **settings: Any
) -> RPCPluginClient:
    return plugin_client(
        [folder / "plugin", *options],
        protocol_versions=versions,
        magic_cookie_key="INTEROP_COOKIE",
        magic_cookie_value="interop",
        auto_mtls=mtls,
        **settings,
    )


class Adder(AdderBase):
    async def Add(self, stream):
        terms = await stream.recv_message()
        await stream.send_message(Sum(sum=terms.first + terms.second))
