"""A plugin whose methods call their host back. Its one argument is the event loop."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import anyio

from pyvider_rpcplugin import context, plugin_server, raises


class Stopped(Exception):
    pass


class StoreAPI(Protocol):
    async def get(self, key: str, default: str = "") -> str: ...
    async def put(self, key: str, value: str) -> None: ...
    def every_key(self) -> AsyncIterator[str]: ...
    async def watch(self, on_change: Callable[[str], Awaitable[bool]]) -> int: ...
    async def pick(self, items: AsyncIterator[int] | None = None) -> int: ...


@raises(Stopped)
class Calling:
    def __init__(self) -> None:
        self.kept: Any = None

    async def copy(self, source: str, target: str) -> str:
        store = context().host(StoreAPI)
        value = await store.get(source)
        await store.put(target, value * 2)
        return value

    async def keys(self) -> list[str]:
        return sorted([key async for key in context().host(StoreAPI).every_key()])

    async def watch(self, times: int) -> list[str]:
        """Lend the host a function, over a call of its own."""
        seen: list[str] = []

        async def on_change(key: str) -> bool:
            seen.append(key)
            return len(seen) < times

        count = await context().host(StoreAPI).watch(on_change)
        assert count == len(seen)
        return seen

    async def lend_items(self, count: int) -> int:
        async def items() -> AsyncIterator[int]:
            for n in range(count):
                yield n

        return await context().host(StoreAPI).pick(items())

    async def each(self, items: list[int], progress: Callable[[int, str], Awaitable[str]]) -> str:
        answers = [await progress(item, "done") for item in items]
        return answers[-1]

    async def report(self, progress: Callable[[], Awaitable[None]] | None = None) -> bool:
        if progress is None:
            return False
        await progress()
        return True

    async def collect(
        self, names: AsyncIterator[str], numbers: AsyncIterator[int], *, first: int = 99
    ) -> list[Any]:
        found: list[Any] = [name async for name in names]
        async for number in numbers:
            found.append(number)
            if len(found) == first:
                break
        return found

    async def count(
        self, up_to: Callable[[int], Awaitable[bool]], start: int = 0
    ) -> AsyncIterator[int]:
        n = start
        while await up_to(n):
            yield n
            n += 1

    async def keep(self, function: Callable[[], Awaitable[int]]) -> int:
        if self.kept is None:
            self.kept = function
        return await self.kept()

    async def pid(self) -> int:
        return os.getpid()

    async def wait(self, until: Callable[[], Awaitable[None]]) -> None:
        await until()
        await anyio.Event().wait()


if __name__ == "__main__":
    plugin_server(handler=Calling()).run(sys.argv[1])  # type: ignore[arg-type]
