"""How a task waits, is woken from where the loop reads, and is started while another one waits."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from pyvider_rpcplugin._loops import Spawner, Waiter, waiter_factory, wake_at_once
from pyvider_rpcplugin.transport._stream import SocketStream

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def wait(waiter: Waiter, log: list[str], name: str) -> None:
    await waiter.wait()
    log.append(name)


@asynccontextmanager
async def waiting(*names: str) -> AsyncIterator[tuple[list[Waiter], list[str]]]:
    """Tasks that each wait, and log their names once they go on."""
    waiters = [waiter_factory()() for _ in names]
    log: list[str] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for waiter, name in zip(waiters, names, strict=True):
                tasks.start_soon(wait, waiter, log, name)
            while not all(waiter.waiting for waiter in waiters):
                await anyio.lowlevel.checkpoint()
            yield waiters, log
            tasks.cancel_scope.cancel()


async def test_a_waiter_lets_its_task_go_on_once_and_can_be_used_again() -> None:
    waiter = waiter_factory()()
    waiter.wake()  # Nobody waits: that is no wake-up for who comes later.
    for _ in range(2):
        assert not waiter.waiting
        log: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, waiter, log, "on")
            await anyio.wait_all_tasks_blocked()
            assert waiter.waiting
            assert log == []
            waiter.wake()
            waiter.wake()
            assert not waiter.waiting
        assert log == ["on"]


async def test_who_waits_can_be_cancelled_by_a_scope_and_by_a_deadline() -> None:
    waiter = waiter_factory()()
    with anyio.fail_after(5):
        with anyio.move_on_after(0.001) as scope:
            await waiter.wait()
        assert scope.cancelled_caught
        assert not waiter.waiting
        with anyio.CancelScope() as scope:
            scope.cancel()
            await waiter.wait()
        assert scope.cancelled_caught
        async with waiting("next") as ((waiter,), log):
            waiter.wake()
            while not log:
                await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_asyncios_that_waits_is_cancelled_with_the_message() -> None:
    waiter = waiter_factory()()
    task = asyncio.create_task(wait(waiter, [], "never"))
    await asyncio.sleep(0)
    assert waiter.waiting
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_was_woken_and_then_cancelled_is_cancelled() -> None:
    waiter = waiter_factory()()
    task = asyncio.create_task(wait(waiter, [], "never"))
    await asyncio.sleep(0)
    waiter.wake()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not waiter.waiting


async def reads_and_wakes(waiters: list[Waiter], log: list[str], *, at_once: bool) -> None:
    """Read something in the loop's callback, and wake all of them there."""
    here, there = socket.socketpair()
    stream = SocketStream(here)
    first, done = anyio.Event(), anyio.Event()

    def take(_data: bytes) -> bool:
        if not first.is_set():  # The task has read that itself.
            first.set()
            return True
        asyncio.get_running_loop().call_soon(log.append, "next iteration")
        if at_once:
            wake_at_once()
        for waiter in waiters:
            waiter.wake()
        log.append("taken")
        done.set()
        return True

    with there:
        async with stream, anyio.create_task_group() as tasks:
            tasks.start_soon(stream.feed, take)
            await anyio.wait_all_tasks_blocked()
            there.send(b"x")
            await first.wait()
            await anyio.wait_all_tasks_blocked()
            there.send(b"x")
            await done.wait()
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


needs_callbacks = pytest.mark.skipif(sys.platform == "win32", reason="its loop has none")


@needs_callbacks
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_single_task_that_is_woken_at_once_goes_on_before_all_else() -> None:
    async with waiting("a") as (waiters, log):
        await reads_and_wakes(waiters, log, at_once=True)
    assert log == ["taken", "a", "next iteration"]


@needs_callbacks
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_several_tasks_that_are_woken_go_on_in_the_next_iteration() -> None:
    async with waiting("a", "b") as (waiters, log):
        await reads_and_wakes(waiters, log, at_once=True)
    assert log == ["taken", "next iteration", "a", "b"]


@needs_callbacks
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_is_woken_otherwise_goes_on_in_the_next_iteration() -> None:
    async with waiting("a") as (waiters, log):
        await reads_and_wakes(waiters, log, at_once=False)
    assert log == ["taken", "next iteration", "a"]


@needs_callbacks
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_woken_task_that_fails_harms_nobody_who_reads() -> None:
    async def fail(waiter: Waiter) -> None:
        await waiter.wait()
        msg = "its own trouble"
        raise ValueError(msg)

    waiter = waiter_factory()()
    failing = asyncio.create_task(fail(waiter))
    await asyncio.sleep(0)
    with anyio.fail_after(5):
        await reads_and_wakes([waiter], [], at_once=True)
    with pytest.raises(ValueError, match="its own trouble"):
        await failing


# --- tasks by the thousand ---------------------------------------------------------------------


@asynccontextmanager
async def spawning() -> AsyncIterator[Spawner]:
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            spawner = Spawner(tasks)
            try:
                yield spawner
            finally:
                spawner.close()


@pytest.mark.parametrize("settled", [True, False], ids=["it waits", "it has not begun"])
async def test_each_task_that_is_started_at_once_has_a_name_and_a_context_of_its_own(
    settled: bool,
) -> None:
    seen: list[tuple[str, str]] = []

    async def body(value: str) -> None:
        seen.append((VARIABLE.get(), anyio.get_current_task().name or ""))
        VARIABLE.set(value)

    async with spawning() as spawner:
        for number in range(4):
            if settled:
                await anyio.wait_all_tasks_blocked()
            spawner.start_at_once(body, "changed", name=f"/task/{number}")
    assert [name for _, name in seen] == [f"/task/{number}" for number in range(4)] or not settled
    assert sorted(name for _, name in seen) == [f"/task/{number}" for number in range(4)]
    assert {value for value, _ in seen} == {"unset"}


async def test_a_task_that_is_cancelled_before_it_has_begun_still_begins() -> None:
    began: list[int] = []

    async def body(number: int) -> None:
        began.append(number)
        await anyio.sleep_forever()

    async with spawning() as spawner:
        for number in range(3):
            await anyio.wait_all_tasks_blocked()
            spawner.start_at_once(body, number, name="body").cancel()
        await anyio.wait_all_tasks_blocked()
    assert began == [0, 1, 2]


async def test_cancelling_one_task_leaves_the_others_and_those_to_come() -> None:
    ended: list[str] = []

    async def body(name: str, event: anyio.Event) -> None:
        await event.wait()
        ended.append(name)

    async with spawning() as spawner:
        event = anyio.Event()
        first = spawner.start_at_once(body, "first", event, name="first")
        spawner.start(body, "second", event, name="second")
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        event.set()
        await anyio.wait_all_tasks_blocked()
        spawner.start_at_once(body, "third", event, name="third")
        await anyio.wait_all_tasks_blocked()
    assert ended == ["second", "third"]


async def test_work_that_is_given_while_the_group_is_cancelled_still_begins() -> None:
    began: list[int] = []

    async def body() -> None:
        began.append(1)
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            spawner = Spawner(tasks)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            spawner.start_at_once(body, name="body")
            spawner.close()
    assert began == [1]
