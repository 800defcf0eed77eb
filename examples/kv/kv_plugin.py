"""Keeps values in files of the folder that it is run in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from grpclib import GRPCError, Status
from kv_grpc import KVBase
from kv_pb2 import Empty, GetRequest, GetResponse, PutRequest

from pyvider_rpcplugin import plugin_server

if TYPE_CHECKING:
    from grpclib.server import Stream


class KV(KVBase):
    async def Get(self, stream: Stream[GetRequest, GetResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        try:
            value = file_of(request.key).read_bytes()
        except FileNotFoundError:
            raise GRPCError(Status.NOT_FOUND, f"there is no {request.key!r}") from None
        await stream.send_message(GetResponse(value=value))

    async def Put(self, stream: Stream[PutRequest, Empty]) -> None:
        request = await stream.recv_message()
        assert request is not None
        file_of(request.key).write_bytes(request.value)
        await stream.send_message(Empty())


def file_of(key: str) -> Path:
    if not key.isidentifier():
        raise GRPCError(Status.INVALID_ARGUMENT, f"{key!r} cannot be a key")
    return Path(f"kv_{key}")


if __name__ == "__main__":
    plugin_server(handler=KV(), magic_cookie_key="BASIC_PLUGIN", magic_cookie_value="hello").run(
        backend="trio" if sys.argv[1:] == ["trio"] else "asyncio"
    )
