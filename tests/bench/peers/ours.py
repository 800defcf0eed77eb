"""This library's engine, with the transport that plugins use: what grpclib's users write runs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin.rpc import Channel, Server
from pyvider_rpcplugin.transport import UnixSocketTransport
from tests.bench.peers._grpclib_code import Echo, GrpclibCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    async def main() -> None:
        async with UnixSocketTransport(address).listen() as listener:
            ready()
            await Server([Echo()]).serve(listener)

    anyio.run(main, backend=backend)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[GrpclibCaller]:
    channel = Channel(UnixSocketTransport(address).connect)
    async with anyio.create_task_group() as tasks:
        await tasks.start(channel.run)
        yield GrpclibCaller(channel)
        channel.close()
