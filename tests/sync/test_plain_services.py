"""Plugins whose handlers are classes of plain functions, and hosts that call them by those."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import anyio
import pytest

from pyvider_rpcplugin import ProtocolError, plugin_client
from pyvider_rpcplugin.protocol.typed import in_threads
from pyvider_rpcplugin.rpc import DeadlineExceeded
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import FOLDER
from tests.plugins.plain_counter_plugin import Empty, PlainCounter

pytestmark = pytest.mark.process

PROGRAM = str(FOLDER / "plain_counter_plugin.py")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_host_and_plugin_without_an_event_loop_in_sight(loop: str) -> None:
    with plugin_client_sync([sys.executable, PROGRAM, loop]) as client:
        counter: PlainCounter = client.proxy(PlainCounter)
        assert counter.add(1, to=2) == 3
        assert list(counter.count(3)) == [3, 2, 1]
        assert counter.was_closed()
        assert counter.total(iter(range(5)), factor=10) == 100
        assert list(counter.doubled(iter([1, 2, 3]))) == [2, 4, 6]
        with pytest.raises(Empty, match="nothing there"):
            counter.fail()
        late: PlainCounter = client.proxy(PlainCounter, timeout=0.05)
        with pytest.raises(DeadlineExceeded):
            late.hang()
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(lambda _: counter.meet(), range(4)))) == 4


async def test_a_host_with_an_event_loop_calls_them_by_an_interface_of_its_own() -> None:
    class Counter(Protocol):
        async def add(self, number: int, *, to: int = 0) -> int: ...

        def count(self, start: int) -> AsyncIterator[int]: ...

        async def was_closed(self) -> bool: ...

        async def total(self, numbers: AsyncIterator[int]) -> int: ...

    async def numbers() -> AsyncIterator[int]:
        for number in range(4):
            yield number

    with anyio.fail_after(15):
        async with plugin_client([sys.executable, PROGRAM]) as client:
            counter = client.proxy(Counter, service_name="PlainCounter")
            assert await counter.add(1, to=2) == 3
            stream = counter.count(1 << 40)
            assert await anext(stream) == 1 << 40
            await stream.aclose()  # type: ignore[attr-defined]
            assert await counter.was_closed()
            assert await counter.total(numbers()) == 6


def test_a_class_without_plain_functions_is_refused() -> None:
    class Nothing:
        async def call(self) -> None: ...

    with pytest.raises(ProtocolError, match="no public methods"):
        in_threads(Nothing())
