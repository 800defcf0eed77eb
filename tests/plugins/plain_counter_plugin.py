"""Serves a class of plain functions, each call in a thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyvider_rpcplugin import plugin_server
from pyvider_rpcplugin.protocol.typed import in_threads, raises


class Empty(Exception):
    pass


class PlainCounter:
    """Counts."""

    def __init__(self) -> None:
        self._together = threading.Barrier(4)
        self._closed = threading.Event()
        self._never = threading.Event()

    def add(self, number: int, *, to: int = 0) -> int:
        """Add two numbers."""
        return number + to

    def meet(self) -> str:
        """Return once four calls are here."""
        self._together.wait(10)
        return str(threading.get_ident())

    @raises(Empty)
    def fail(self) -> None:
        raise Empty("nothing there")

    def hang(self) -> None:
        self._never.wait(0.5)

    def count(self, start: int) -> Iterator[int]:
        try:
            yield from range(start, 0, -1)
        finally:
            self._closed.set()

    def was_closed(self) -> bool:
        return self._closed.wait(10)

    def total(self, numbers: Iterator[int], *, factor: int = 1) -> int:
        return sum(numbers) * factor

    def doubled(self, numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            yield 2 * number


if __name__ == "__main__":
    server = plugin_server(handler=in_threads(PlainCounter()), max_workers=5)
    server.run(backend="trio" if "trio" in sys.argv else "asyncio")
