"""This library's engine once more, with a typed service instead of generated code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin.protocol.typed import TypedService, make_proxy
from pyvider_rpcplugin.rpc import Channel, Server
from pyvider_rpcplugin.transport import UnixSocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable


class Echo:
    async def unary(self, data: bytes) -> bytes:
        return data

    async def server_stream(self, data: bytes, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield data

    async def client_stream(self, items: AsyncIterator[bytes]) -> int:
        total = 0
        async for data in items:
            total += len(data)
        return total

    async def bidi(self, items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for data in items:
            yield data


class TypedCaller:
    def __init__(self, channel: Channel) -> None:
        self._proxy = make_proxy(Echo, channel)

    async def unary(self, payload: bytes, count: int) -> None:
        call = self._proxy.unary
        reply = b""
        for _ in range(count):
            reply = await call(payload)
        assert reply == payload

    async def server_stream(self, payload: bytes, count: int) -> None:
        received = 0
        async for _ in self._proxy.server_stream(payload, count):
            received += 1
        assert received == count

    async def client_stream(self, payload: bytes, count: int) -> None:
        async def items() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield payload

        assert await self._proxy.client_stream(items()) == count * len(payload)

    async def ping_pong(self, payload: bytes, count: int) -> None:
        replied = anyio.Event()

        async def items() -> AsyncIterator[bytes]:
            nonlocal replied
            for _ in range(count):
                yield payload
                await replied.wait()
                replied = anyio.Event()

        received = 0
        async for _ in self._proxy.bidi(items()):
            received += 1
            replied.set()
        assert received == count


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    async def main() -> None:
        async with UnixSocketTransport(address).listen() as listener:
            ready()
            await Server([TypedService(Echo())]).serve(listener)

    anyio.run(main, backend=backend)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[TypedCaller]:
    channel = Channel(UnixSocketTransport(address).connect)
    async with anyio.create_task_group() as tasks:
        await tasks.start(channel.run)
        yield TypedCaller(channel)
        channel.close()
