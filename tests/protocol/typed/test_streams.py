"""Streams of typed services: left early, fed slowly, failing on either side."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.protocol.typed import RemoteError, ResultStream, make_proxy
from tests.protocol.typed.support import called, served


class Counter:
    """Counts, and notes how its methods ended."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.heard: list[int] = []
        self.hears = anyio.Event()

    async def count(self, fail_at: int = -1) -> AsyncIterator[int]:
        try:
            n = 0
            while True:
                if n == fail_at:
                    raise ValueError(n)
                yield n
                n += 1
        finally:
            self.ended.set()

    async def echo(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        try:
            async for item in items:
                self.heard.append(item)
                yield item
        finally:
            self.ended.set()

    async def first(self, items: AsyncIterator[int]) -> int:
        async for item in items:
            return item
        return -1

    async def listen(self, items: AsyncIterator[int]) -> int:
        try:
            async for item in items:
                self.heard.append(item)
                self.hears.set()
            return len(self.heard)
        finally:
            self.ended.set()


class Source:
    """An endless async generator, and whether it was closed."""

    def __init__(self, fail_at: int = -1) -> None:
        self.closed = anyio.Event()
        self.fail_at = fail_at

    async def numbers(self) -> AsyncIterator[int]:
        try:
            n = 0
            while True:
                await anyio.lowlevel.checkpoint()
                if n == self.fail_at:
                    raise LookupError("no more")
                yield n
                n += 1
        finally:
            self.closed.set()

    async def one(self) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.Event().wait()
        finally:
            self.closed.set()


async def leave_by_break(stream: Any) -> None:
    async for n in stream:
        if n == 3:
            break
    del stream


async def leave_by_block(stream: Any) -> None:
    async with stream as numbers:
        async for n in numbers:
            if n == 3:
                break


async def leave_by_aclosing(stream: Any) -> None:
    async with contextlib.aclosing(stream) as numbers:
        assert await anext(numbers) == 0


async def leave_by_exception(stream: Any) -> None:
    with pytest.raises(KeyError):
        async with stream:
            async for n in stream:
                raise KeyError(n)


async def leave_by_cancellation(stream: Any) -> None:
    with anyio.CancelScope() as scope:
        async with stream:
            assert await anext(stream) == 0
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught


LEAVE = pytest.mark.parametrize(
    "leave",
    [leave_by_break, leave_by_block, leave_by_aclosing, leave_by_exception, leave_by_cancellation],
)


@LEAVE
async def test_leaving_a_stream_early_ends_the_method_on_the_other_side(leave: Any) -> None:
    counter = Counter()
    async with called(counter) as proxy:
        with anyio.fail_after(5):
            await leave(proxy.count())
            await counter.ended.wait()


@LEAVE
async def test_leaving_a_stream_early_stops_what_feeds_it(leave: Any) -> None:
    counter, source = Counter(), Source()
    async with called(counter) as proxy:
        with anyio.fail_after(5):
            await leave(proxy.echo(source.numbers()))
            await counter.ended.wait()
            await source.closed.wait()


async def test_closing_waits_until_the_iterator_given_is_closed() -> None:
    source = Source()
    async with called(Counter()) as proxy:
        with anyio.fail_after(5):
            stream = proxy.echo(source.numbers())
            assert await anext(stream) == 0
            await stream.aclose()
            assert source.closed.is_set()
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_a_dropped_stream_is_ended_in_a_cycle_as_well() -> None:
    counter = Counter()
    async with called(counter) as proxy:
        with anyio.fail_after(5):
            holder: list[Any] = [proxy.count()]
            holder.append(holder)
            assert await anext(holder[0]) == 0
            del holder
            gc.collect()
            await counter.ended.wait()


async def test_a_stream_that_nobody_reads_makes_no_call() -> None:
    async with served(Counter()) as ours:
        proxy = make_proxy(Counter, ours.channel)
        stream: Any = proxy.count()
        assert isinstance(stream, ResultStream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        proxy.count()
        assert not ours.server._connections or not any(
            one._calls for one in ours.server._connections
        )


async def test_a_cancelled_wait_for_the_next_result_loses_none() -> None:
    class Pausing:
        async def numbers(self) -> AsyncIterator[int]:
            yield 1
            await go_on.wait()
            yield 2

    go_on = anyio.Event()
    async with called(Pausing()) as proxy:
        with anyio.fail_after(5):
            async with proxy.numbers() as numbers:
                assert await anext(numbers) == 1
                with anyio.move_on_after(0.01):
                    await anext(numbers)
                go_on.set()
                assert await anext(numbers) == 2
                with pytest.raises(StopAsyncIteration):
                    await anext(numbers)


async def test_two_tasks_cannot_read_the_same_stream_and_the_first_goes_on() -> None:
    class Pausing:
        async def numbers(self) -> AsyncIterator[int]:
            await go_on.wait()
            yield 1

    async def read() -> None:
        results.append(await anext(stream))

    go_on = anyio.Event()
    results: list[int] = []
    async with called(Pausing()) as proxy:
        stream = proxy.numbers()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await anext(stream)
                go_on.set()
        assert results == [1]
        await stream.aclose()


async def test_a_failure_comes_after_the_results_before_it() -> None:
    async with called(Counter()) as proxy:
        stream = proxy.count(fail_at=2)
        with anyio.fail_after(5):
            assert [await anext(stream), await anext(stream)] == [0, 1]
            with pytest.raises(RemoteError, match="ValueError: 2"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_what_the_given_iterator_raises_is_what_the_call_raises() -> None:
    counter = Counter()
    async with called(counter) as proxy:
        with anyio.fail_after(5):
            with pytest.raises(LookupError, match="no more"):
                await proxy.listen(Source(fail_at=3).numbers())
            await counter.ended.wait()
            with pytest.raises(LookupError, match="no more"):
                async for _ in proxy.echo(Source(fail_at=3).numbers()):
                    pass


async def test_a_result_before_the_end_of_the_arguments_stops_them() -> None:
    source = Source()
    async with called(Counter()) as proxy:
        with anyio.fail_after(5):
            assert await proxy.first(source.numbers()) == 0
            assert source.closed.is_set()
            waiting = Source()
            assert await proxy.first(waiting.one()) == 1
            assert waiting.closed.is_set()


async def test_cancelling_a_call_closes_the_iterator_that_it_reads() -> None:
    counter, source = Counter(), Source()
    async with called(counter) as proxy:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(proxy.listen, source.one())
                await counter.hears.wait()
                tasks.cancel_scope.cancel()
            await counter.ended.wait()
            assert source.closed.is_set()
            assert counter.heard == [1]


async def test_items_are_checked_on_arrival() -> None:
    async def wrong() -> AsyncIterator[Any]:
        yield 1
        yield "two"

    async def unsendable() -> AsyncIterator[Any]:
        yield 2**64

    async with called(Counter()) as proxy:
        with anyio.fail_after(5):
            with pytest.raises(
                GRPCError, match=r"argument 'items'.*Expected `int`, got `str`"
            ) as e:
                await proxy.listen(wrong())
            assert e.value.status is Status.INVALID_ARGUMENT
            with pytest.raises(GRPCError, match=r"argument 'items'.*cannot be sent"):
                await proxy.listen(unsendable())


async def test_something_slow_on_one_side_holds_the_other_back() -> None:
    produced = 0

    class Fast:
        async def blocks(self) -> AsyncIterator[bytes]:
            nonlocal produced
            while True:
                yield bytes(65_536)
                produced += 1

    async with called(Fast()) as proxy:
        with anyio.fail_after(5):
            async with proxy.blocks() as blocks:
                await anext(blocks)
                await anyio.wait_all_tasks_blocked()
                assert produced < 200
