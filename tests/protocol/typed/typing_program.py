"""A host as its author writes it, for the type checkers: it is not run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol, assert_type

from pyvider_rpcplugin import context, plugin_client, plugin_server, raises


class NotFound(Exception):
    key: str


@raises(NotFound)
class Greeter:
    async def hello(self, name: str, *, loud: bool = False) -> str:
        return f"Hello, {name}{'!' if loud else '.'}"

    async def countdown(self, start: int) -> AsyncIterator[int]:
        for n in range(start, 0, -1):
            yield n

    async def ticks(self) -> AsyncGenerator[int, None]:
        yield 1

    @raises(KeyError)
    async def total(self, numbers: AsyncIterator[int]) -> float:
        return sum([n async for n in numbers])

    async def each(self, done: Callable[[int], Awaitable[None]]) -> None:
        await done(1)


class GreeterAPI(Protocol):
    async def hello(self, name: str, *, loud: bool = False) -> str: ...
    def countdown(self, start: int) -> AsyncIterator[int]: ...


class Store(Protocol):
    async def get(self, key: str) -> bytes: ...


class Files:
    async def get(self, key: str) -> bytes:
        return key.encode()


async def numbers() -> AsyncIterator[int]:
    yield 1


async def done(number: int) -> None: ...


async def main() -> None:
    async with plugin_client(["greeter"], services=[Files()]) as client:
        greeter = client.proxy(Greeter)
        assert_type(greeter, Greeter)
        assert_type(await greeter.hello("Ada", loud=True), str)
        async for n in greeter.countdown(3):
            assert_type(n, int)
        async with contextlib.aclosing(greeter.ticks()) as ticks:
            assert_type(await anext(ticks), int)
        assert_type(await greeter.total(numbers()), float)
        await greeter.each(done)
        await greeter.hello(1)  # wrong
        await greeter.hello("Ada", True)  # wrong
        await greeter.hello()  # wrong
        await greeter.each(numbers)  # wrong

        other = client.proxy(GreeterAPI, service_name="Greeter", timeout=3, metadata={"a": "b"})
        assert_type(other, GreeterAPI)
        assert_type(await other.hello("Ada"), str)
        async for n in other.countdown(3):
            assert_type(n, int)
        other.countdown("3")  # wrong
        await other.total(numbers())  # wrong
        await client.check(GreeterAPI)


async def handler() -> None:
    store = context().host(Store)
    assert_type(store, Store)
    assert_type(await store.get("key"), bytes)
    await store.get(b"key")  # wrong


plugin_server(handler=Greeter()).run()
