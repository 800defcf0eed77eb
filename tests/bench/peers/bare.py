"""No RPC at all: anyio's streams carry the bytes there and back. What any peer can at most reach."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from tests.bench.peers._one_caller import OneCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import ByteStream


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    async def echo(stream: ByteStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    async def main() -> None:
        async with await anyio.create_unix_listener(address) as listener:
            ready()
            await listener.serve(echo)

    anyio.run(main, backend=backend)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[BareCaller]:
    async with await anyio.connect_unix(address) as stream:
        yield BareCaller(stream)


class BareCaller(OneCaller):
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def unary(self, payload: bytes, count: int) -> None:
        send, receive = self._stream.send, self._stream.receive
        reply: bytes | None = None
        for _ in range(count):
            await send(payload)
            reply = await receive()
        assert reply == payload
