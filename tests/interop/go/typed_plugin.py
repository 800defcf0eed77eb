"""A plugin whose service is a plain class, for hosts in Go. Its one argument is the event loop."""

from __future__ import annotations

import datetime as dt
import enum
import sys
from collections.abc import AsyncIterator

import msgspec

from pyvider_rpcplugin import plugin_protocol, plugin_server

SERVICE = "interop.typed.Inventory"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    name: str
    colour: Colour
    price: float = 1.5
    tags: list[str] = []
    sizes: dict[str, int] = {}
    since: dt.datetime | None = None


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Inventory:
    """Keeps items."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    async def put(self, item: Item, *, replace: bool = True) -> int:
        """Keep an item, and say how many there are."""
        if replace or item.name not in self.items:
            self.items[item.name] = item
        return len(self.items)

    async def get(self, name: str) -> Item:
        if name not in self.items:
            raise KeyError(name)
        return self.items[name]

    async def area(self, shape: Circle | Square) -> float:
        return 3.0 * shape.radius**2 if isinstance(shape, Circle) else shape.side**2

    async def names(self, prefix: str = "") -> AsyncIterator[str]:
        for name in sorted(self.items):
            if name.startswith(prefix):
                yield name

    async def total(self, items: AsyncIterator[Item], factor: float = 1.0) -> float:
        return factor * sum([item.price async for item in items])

    async def greet(self, names: AsyncIterator[str], greeting: str = "Hello") -> AsyncIterator[str]:
        async for name in names:
            yield f"{greeting}, {name}"


if __name__ == "__main__":
    plugin_server(plugin_protocol(SERVICE), Inventory()).run(sys.argv[1])  # type: ignore[arg-type]
