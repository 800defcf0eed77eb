"""Two sides of different ages: what may be added, and what a mismatch says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.protocol.typed.support import called


def older() -> type:
    class Item(msgspec.Struct):
        name: str

    class Store:
        async def put(self, item: Item) -> Item:
            return Item(item.name.upper())

        async def size(self, items: AsyncIterator[Item]) -> int:
            return len([item async for item in items])

    Store.Item = Item  # type: ignore[attr-defined]
    return annotated(Store, Item)


def newer() -> type:
    class Item(msgspec.Struct):
        name: str
        price: float = 1.5
        tags: list[str] = []

    class Store:
        async def put(self, item: Item, *, again: bool = False, note: str | None = None) -> Item:
            return Item(item.name.upper(), item.price * 2, [str(again), str(note)])

        async def size(self, items: AsyncIterator[Item], at_least: int = 0) -> int:
            return max(at_least, len([item async for item in items]))

        async def clear(self) -> None: ...

    Store.Item = Item  # type: ignore[attr-defined]
    return annotated(Store, Item)


def annotated(store: Any, item: type) -> type:
    """Resolve what is only known inside of a function."""
    for method in (store.put, store.size):
        for name, annotation in method.__annotations__.items():
            known = {"Item": item, "AsyncIterator": AsyncIterator}
            method.__annotations__[name] = eval(annotation, known)
    return store


async def several(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def test_a_newer_plugin_serves_an_older_host() -> None:
    old: Any = older()
    async with called(newer()(), old, service_name="Store") as store:
        reply = await store.put(old.Item("a"))
        assert reply == old.Item("A")
        assert await store.size(several(reply)) == 1


async def test_an_older_plugin_serves_a_newer_host() -> None:
    new: Any = newer()
    async with called(older()(), new, service_name="Store") as store:
        reply = await store.put(new.Item("a", 9.0, ["x"]))
        assert reply == new.Item("A", 1.5, [])
        assert await store.size(several(reply)) == 1
        assert await store.size(items=several(reply)) == 1


async def test_an_argument_that_an_older_plugin_does_not_have_is_named() -> None:
    new: Any = newer()
    async with called(older()(), new, service_name="Store") as store:
        for call in (
            store.put(new.Item("a"), again=True),
            store.size(several(), at_least=1),
            store.size(several(), 1),
        ):
            with pytest.raises(GRPCError, match=r"there is no argument '(again|at_least)'") as e:
                await call
            assert e.value.status is Status.INVALID_ARGUMENT


async def test_an_argument_that_an_older_host_does_not_know_of_is_named() -> None:
    class Strict:
        async def put(self, item: str, owner: str) -> None: ...

    class Lax:
        async def put(self, item: str) -> None: ...

    async with called(Strict(), Lax, service_name="Strict") as store:
        with pytest.raises(GRPCError, match="the argument 'owner' is missing") as caught:
            await store.put("x")
        assert caught.value.status is Status.INVALID_ARGUMENT


async def test_an_argument_of_another_name_is_named_with_the_nearest_one() -> None:
    class Served:
        async def put(self, item: str, colour: str = "") -> None: ...

    class Expected:
        async def put(self, item: str, color: str = "") -> None: ...

    async with called(Served(), Expected, service_name="Served") as store:
        await store.put("x")
        with pytest.raises(GRPCError, match=r"no argument 'color'; is it 'colour'\?"):
            await store.put("x", color="red")


async def test_a_field_that_is_missing_in_a_struct_is_named() -> None:
    class Item(msgspec.Struct):
        name: str
        size: int

    class Strict:
        async def put(self, items: list[Item]) -> None: ...

    Strict.put.__annotations__["items"] = list[Item]
    old: Any = older()

    class Lax:
        async def put(self, items: list[Any]) -> None: ...

    async with called(Strict(), Lax, service_name="Strict") as store:
        with pytest.raises(GRPCError, match=r"missing required field `size` - at `\$\[0\]`"):
            await store.put([old.Item("a")])
