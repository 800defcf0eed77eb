"""Serves a class with all kinds of methods, without generated code."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio

from pyvider_rpcplugin import plugin_server


class Counter:
    async def add(self, number: int, *, to: int = 0) -> int:
        return number + to

    async def fail(self) -> None:
        raise LookupError("nothing there")

    async def hang(self) -> None:
        await anyio.Event().wait()

    async def tell(self, listener: Callable[[int], Awaitable[None]]) -> None:
        await listener(1)

    async def count(self, start: int, *, hang: bool = False) -> AsyncIterator[int]:
        for number in range(start, 0, -1):
            yield number
        if hang:
            await anyio.Event().wait()

    async def total(self, numbers: AsyncIterator[int], *, factor: int = 1) -> int:
        return sum([number async for number in numbers]) * factor

    async def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
        async for number in numbers:
            yield 2 * number


if __name__ == "__main__":
    plugin_server(handler=Counter()).run(backend="trio" if "trio" in sys.argv else "asyncio")
