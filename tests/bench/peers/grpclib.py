"""grpclib."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from grpclib.client import Channel
from grpclib.server import Server

from tests.bench.peers._grpclib_code import Echo, GrpclibCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    async def main() -> None:
        server = Server([Echo()])
        await server.start(path=address)
        ready()
        await server.wait_closed()

    asyncio.run(main())


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[GrpclibCaller]:
    async with Channel(path=address) as channel:
        yield GrpclibCaller(channel)
