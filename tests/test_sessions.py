from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import pytest
import trio

from pyvider_rpcplugin._tasks import Operation, Session, raise_bare, unwrapped
from pyvider_rpcplugin.exception import RPCPluginError

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def make(body: Callable[[Session[str]], Awaitable[None]], limit: float = 5) -> Session[str]:
    return Session(body, name="plugin session x", advice="stop it", limit=limit)


async def until_stopped(session: Session[str]) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(anyio.sleep_forever)
        session.started("value")
        await session.stop_requested.wait()
        tg.cancel_scope.cancel()


async def test_a_session_starts_gives_its_value_and_ends_when_asked() -> None:
    session = make(until_stopped)
    session.spawn()
    with anyio.fail_after(5):
        assert await session.wait_started() == "value"
        assert session.up
        assert not session.finished
        session.request_stop()
        await session.wait_finished()
    assert session.finished
    assert session.failure is None
    assert not session.ended_by_owner


async def test_a_spawned_session_sees_the_callers_context_variables() -> None:
    async def body(session: Session[str]) -> None:
        session.started(VARIABLE.get())

    token = VARIABLE.set("mine")
    try:
        session = make(body)
        session.spawn()
    finally:
        VARIABLE.reset(token)
    with anyio.fail_after(5):
        assert await session.wait_started() == "mine"
        await session.wait_finished()


async def test_the_task_of_a_session_bears_its_name() -> None:
    async def body(session: Session[str]) -> None:
        session.started(anyio.get_current_task().name or "")

    session = make(body)
    session.spawn()
    with anyio.fail_after(5):
        assert await session.wait_started() == "plugin session x"
        await session.wait_finished()


async def test_a_failure_before_the_start_is_raised_bare_with_its_context() -> None:
    async def body(session: Session[str]) -> None:
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(anyio.sleep_forever)
                try:
                    raise KeyError
                except KeyError:
                    raise RPCPluginError("broken")  # noqa: B904 - the context is what is tested

    session = make(body)
    session.spawn()
    with anyio.fail_after(5):
        try:
            raise OSError("what the caller is handling")
        except OSError:
            with pytest.raises(RPCPluginError, match="broken") as caught:
                await session.wait_started()
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_failure_after_the_start_is_logged_and_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(session: Session[str]) -> None:
        session.started("up")
        await anyio.lowlevel.checkpoint()
        raise ValueError("late")

    session = make(body)
    session.spawn()
    with anyio.fail_after(5), caplog.at_level(logging.ERROR):
        await session.wait_started()
        await session.wait_finished()
    assert isinstance(session.failure, ValueError)
    assert "plugin session x failed" in caplog.text


async def test_cancelling_who_waits_for_the_start_stops_the_session() -> None:
    entered, cleaned = anyio.Event(), anyio.Event()

    async def body(session: Session[str]) -> None:
        try:
            entered.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                cleaned.set()

    session = make(body)
    session.spawn()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            tg.start_soon(session.wait_started)
            await entered.wait()
            tg.cancel_scope.cancel()
        assert cleaned.is_set()
        assert session.finished


async def test_stopping_during_the_start_fails_the_start() -> None:
    async def body(session: Session[str]) -> None:
        await anyio.sleep_forever()

    session = make(body)
    session.spawn()
    session.request_stop()
    with anyio.fail_after(5):
        with pytest.raises(RPCPluginError, match="stopped before it had started"):
            await session.wait_started()


async def test_a_session_in_a_task_group_ends_with_the_group_and_is_quiet() -> None:
    session = make(until_stopped)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            session.spawn_in(tg)
            await session.wait_started()
            tg.cancel_scope.cancel()
    assert session.finished
    assert session.ended_by_owner


async def test_a_failing_session_does_not_cancel_its_task_group() -> None:
    async def body(session: Session[str]) -> None:
        session.started("up")
        raise ValueError("late")

    session = make(body)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            session.spawn_in(tg)
            await session.wait_started()
            await session.wait_finished()
            await anyio.lowlevel.checkpoint()
            assert not tg.cancel_scope.cancel_called


async def test_waiting_for_the_end_is_shielded_from_scopes() -> None:
    release = anyio.Event()

    async def body(session: Session[str]) -> None:
        session.started("up")
        await release.wait()

    session = make(body)
    session.spawn()
    with anyio.fail_after(5):
        await session.wait_started()
        async with anyio.create_task_group() as tg:
            tg.start_soon(session.wait_finished)
            await anyio.wait_all_tasks_blocked()
            tg.cancel_scope.cancel()
            release.set()
        assert session.finished


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_waiting_for_the_end_outlasts_a_native_cancellation() -> None:
    # Only asyncio has a cancellation that knows nothing of shields.
    release = anyio.Event()

    async def body(session: Session[str]) -> None:
        session.started("up")
        await release.wait()

    session = make(body)
    session.spawn()
    await session.wait_started()
    waiter = asyncio.create_task(session.wait_finished())
    await anyio.wait_all_tasks_blocked()
    waiter.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not waiter.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert session.finished


async def test_waiting_for_the_end_is_bounded_and_then_ends_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(session: Session[str]) -> None:
        session.started("up")
        await anyio.sleep_forever()

    session = make(body, limit=0.01)
    session.spawn()
    with anyio.fail_after(5):
        await session.wait_started()
        session.request_stop()
        await session.wait_finished()
        assert "has not ended within" in caplog.text
        await anyio.wait_all_tasks_blocked()
    assert session.finished


async def test_stopping_from_another_thread_works() -> None:
    session = make(until_stopped)
    session.spawn()
    with anyio.fail_after(5):
        await session.wait_started()
        await anyio.to_thread.run_sync(session.request_stop_from_anywhere)
        await session.wait_finished()


END = """
import {loop}, warnings, anyio, sys
sys.path[:0] = {path!r}
from pyvider_rpcplugin._tasks import Session
warnings.simplefilter("always")

async def child():
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
            print("child cleaned")

async def body(session):
    try:
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            session.started(None)
            await session.stop_requested.wait()
    finally:
        with anyio.move_on_after(5, shield=True):
            async with anyio.create_task_group() as tg:
                tg.start_soon(anyio.sleep, 0.001)
            await anyio.to_thread.run_sync(print, "cleaned")

async def main():
    session = Session(body, name="plugin session x", advice="call stop()", limit=5)
    session.spawn()
    await session.wait_started()
    await anyio.sleep(0)
    {how}

try:
    {loop}.run({main})
except BaseException as exc:
    print(type(exc).__name__)
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("return", ""),
        ("raise ValueError", "ValueError"),
        (
            "import signal; signal.raise_signal(signal.SIGINT); await anyio.sleep(5)",
            "KeyboardInterrupt",
        ),
    ],
    ids=["return", "exception", "ctrl-c"],
)
def test_a_forgotten_session_cleans_up_and_warns_when_its_loop_ends(
    loop: str, how: str, outcome: str
) -> None:
    main = "main()" if loop == "asyncio" else "main"
    script = END.format(loop=loop, how=how, main=main, path=sys.path)
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    expected = [line for line in ("child cleaned", "cleaned", outcome) if line]
    assert result.stdout.splitlines() == expected
    assert "ResourceWarning: plugin session x was still running" in result.stderr
    assert "Traceback" not in result.stderr


# What can be awaited and entered.


def operation(log: list[str]) -> Operation[str, int]:
    async def run() -> str:
        log.append("run")
        await anyio.lowlevel.checkpoint()
        return "ran"

    @contextlib.asynccontextmanager
    async def block() -> AsyncIterator[int]:
        log.append("enter")
        yield 1
        log.append("leave")

    return Operation("thing.start", run, block)


async def test_an_operation_can_be_awaited_and_entered() -> None:
    log: list[str] = []
    assert await operation(log) == "ran"
    async with operation(log) as value:
        assert value == 1
    assert log == ["run", "enter", "leave"]


async def test_an_operation_is_used_once() -> None:
    once = operation([])
    await once
    with pytest.raises(RuntimeError, match="already"):
        await once
    with pytest.raises(RuntimeError, match="already"):
        async with once:
            pass


def test_an_operation_runs_wherever_a_coroutine_does() -> None:
    log: list[str] = []
    assert asyncio.run(operation(log)) == "ran"
    assert trio.run(functools.partial(operation, log)) == "ran"
    assert anyio.run(operation, log) == "ran"
    assert anyio.run(operation, log, backend="trio") == "ran"

    async def on_asyncio() -> None:
        assert list(await asyncio.gather(operation(log), operation(log))) == ["ran", "ran"]
        assert await asyncio.wait_for(operation(log), 5) == "ran"
        assert await asyncio.create_task(operation(log)) == "ran"
        async with asyncio.TaskGroup() as tg:
            tg.create_task(operation(log))

    asyncio.run(on_asyncio())
    assert log == ["run"] * 9


def test_a_forgotten_operation_warns_and_leaves_no_coroutine() -> None:
    forgotten = operation([])
    with pytest.warns(RuntimeWarning, match=r"thing\.start\(\) was never awaited") as caught:
        del forgotten
        gc.collect()
    assert len(caught) == 1


def test_closing_or_throwing_into_an_unused_operation_begins_nothing() -> None:
    log: list[str] = []
    operation(log).close()
    with pytest.raises(ValueError, match="thrown"):
        operation(log).throw(ValueError("thrown"))
    assert log == []


# How exceptions leave.


async def test_unwrapped_takes_one_level_off_a_lone_exception() -> None:
    with pytest.raises(ValueError, match="alone"):
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(anyio.sleep_forever)
                raise ValueError("alone")


async def test_unwrapped_leaves_several_and_the_users_own_groups_alone() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with unwrapped():
            async with anyio.create_task_group():
                raise ExceptionGroup("the user's", [ValueError("a")])
    assert caught.value.message == "the user's"

    async def fail(exc: Exception) -> None:
        raise exc

    with pytest.raises(ExceptionGroup) as caught:
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(fail, ValueError("a"))
                tg.start_soon(fail, OSError("b"))
    assert {type(exc) for exc in caught.value.exceptions} == {ValueError, OSError}


def test_raise_bare_keeps_the_context() -> None:
    exc = ValueError("late")
    exc.__context__ = first = KeyError("early")
    try:
        raise OSError
    except OSError:
        with pytest.raises(ValueError, match="late"):
            raise_bare(exc)
    assert exc.__context__ is first


def test_a_warning_that_is_an_error_goes_to_the_unraisable_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: seen.append(info.exc_type))

    async def main() -> None:
        session = make(until_stopped)
        session.spawn()
        await session.wait_started()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        anyio.run(main)
        anyio.run(main, backend="trio")
    assert seen == [ResourceWarning, ResourceWarning]
