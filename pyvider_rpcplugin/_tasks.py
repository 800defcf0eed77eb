"""Tasks that no task group owns, and what a start or a stop can be used as.

Supervised tasks: a session is one coroutine that owns all that a started client or server does, and
this module decides where it runs (see `Session`). `Operation` is what lets one call be awaited,
entered with `async with`, or handed to whatever runs coroutines.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import anyio

from ._loops import Home, caller_from_threads, on_trio
from .exception import RPCPluginError

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    import trio
    from anyio.abc import TaskGroup

    AnyTaskGroup = TaskGroup | trio.Nursery | asyncio.TaskGroup


logger = logging.getLogger(__name__)

T = TypeVar("T")
V = TypeVar("V")


class Session(Generic[T]):
    """One session: a coroutine in which everything that was started lives, and its handle.

    The body is given this object. It calls `started` once, when what it makes can be used, watches
    `stop_requested`, and cleans up behind itself however it ends. It runs in exactly one of three
    places: a supervised task of the loop (`spawn`), somebody's task group (`spawn_in`), or the
    awaiting task itself (`run`). In the first two it never raises into its owner.
    """

    def __init__(
        self,
        body: Callable[[Session[T]], Awaitable[None]],
        *,
        name: str,
        advice: str,
        limit: float,
    ) -> None:
        """Prepare a session; nothing runs yet.

        Args:
            body: The coroutine function that is the session.
            name: What the task is called.
            advice: What whoever forgot to stop it should have done, for the warning.
            limit: Seconds that its end may take before the waiting for it is given up.
        """
        self.name: str = name
        self.limit: float = limit
        self.stop_requested: anyio.Event = anyio.Event()
        self.failure: BaseException | None = None
        self.ended_by_owner: bool = False
        # The tasks of the session that call functions of the user's, which may ask it to stop.
        self.callers: set[int] = set()
        self._body = body
        self._advice = advice
        self._value: T | _Unset = _UNSET
        self._settled = anyio.Event()
        self._finished = anyio.Event()
        self._scope = anyio.CancelScope()
        self._call_in_loop: Callable[[Callable[[], object]], object] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._home: Home | None = None

    # What the body uses.

    @contextlib.contextmanager
    def calling(self) -> Generator[None]:
        """Call functions of the user's in the block: they may stop the session, and not wait for it."""
        caller = anyio.get_current_task().id
        self.callers.add(caller)
        try:
            yield
        finally:
            self.callers.discard(caller)

    def started(self, value: T) -> None:
        """Say that the session is up; `value` goes to who waits for the start."""
        self._value = value
        self._settled.set()

    # Where it runs.

    async def run(self) -> None:
        """Run the session in the awaiting task; a failure leaves it as it was raised.

        Cancelling it is how its owner ends it: the body then cleans up and the cancellation goes on.
        """
        self._home = Home()
        try:
            with self._scope:
                await self._body(self)
        except anyio.get_cancelled_exc_class():
            self.ended_by_owner = True
            raise
        except BaseException as exc:
            self.failure = exc
            raise
        finally:
            self._settled.set()
            self._finished.set()

    def spawn(self) -> None:
        """Run the session in a supervised task of the running loop.

        The task belongs to the loop: when that ends first, by return, exception or Ctrl-C, the
        body is cancelled, cleans up while the loop still waits for it, and a ResourceWarning says
        that nobody stopped it.
        """
        self._home = Home()
        if on_trio():
            import trio  # noqa: PLC0415 - loaded only where it runs

            self._call_in_loop = caller_from_threads()
            trio.lowlevel.spawn_system_task(
                self._supervise, name=self.name, context=contextvars.copy_context()
            )
        else:
            import asyncio  # noqa: PLC0415 - loaded only where it runs

            self.loop = loop = asyncio.get_running_loop()
            self._call_in_loop = caller_from_threads()
            # Not loop.create_task(): an eager task factory would run the first step of the session
            # inside the caller's own task.
            task = asyncio.Task(self._supervise(), loop=loop, name=self.name)
            _supervised_tasks[task] = self
            task.add_done_callback(_forget_supervised)

    def spawn_in(self, task_group: AnyTaskGroup) -> None:
        """Run the session in `task_group`; cancelling the group ends it, its failures stay here."""
        owner: Any = task_group
        if hasattr(owner, "start_soon"):
            owner.start_soon(self._contained, name=self.name)
        else:  # asyncio's own kind
            owner.create_task(self._contained(), name=self.name)

    async def _supervise(self) -> None:
        try:
            await self.run()
        except anyio.get_cancelled_exc_class():
            if self.up and not self.stop_requested.is_set():
                _warn(f"{self.name} was still running when its event loop ended: {self._advice}")
            raise
        except KeyboardInterrupt:
            # Reaches this task only where asyncio has no handler for it. Then the loop has to end.
            raise
        except BaseException as exc:  # noqa: BLE001 - boundary: a session never raises into a loop
            self._log_failure(exc)

    async def _contained(self) -> None:
        try:
            await self.run()
        except anyio.get_cancelled_exc_class():
            raise
        except Exception as exc:  # noqa: BLE001 - boundary: a session never raises into its owner
            self._log_failure(exc)

    def _log_failure(self, exc: BaseException) -> None:
        if self.up:  # before that, the failure is for who waits for the start
            logger.error("%s failed", self.name, exc_info=exc)

    # What the owner uses.

    @property
    def up(self) -> bool:
        """Whether the body has ever said that it is up."""
        return self._value is not _UNSET

    @property
    def finished(self) -> bool:
        """Whether the session has ended, its cleaning up included."""
        return self._finished.is_set()

    def check_loop(self) -> None:
        """Refuse to be used on another loop than its own: who waits there might never be woken.

        Once it has ended there is nothing left to wait for.

        Raises:
            RPCPluginError: Another loop is running than the one that started it, or this is
                another thread or another process.
        """
        if self._home is not None and not self.finished:
            self._home.check(self.name)

    @property
    def abandoned(self) -> bool:
        """Whether its loop was closed under it: it will never go on, and nothing cleans up."""
        return self.loop is not None and self.loop.is_closed() and not self.finished

    async def wait_started(self) -> T:
        """Wait until the session is up and return what it gives.

        Raises:
            RPCPluginError: It was stopped before it was up.
            BaseException: Whatever made it fail, as the body raised it.

        Cancellation:
            Stops the session and waits (shielded, bounded) until it has cleaned up.
        """
        try:
            await self._settled.wait()
        except BaseException:
            self.request_stop()
            self._scope.cancel()
            await self.wait_finished()
            raise
        if isinstance(self._value, _Unset):
            if self.failure is None:
                msg = f"{self.name} was stopped before it had started"
                raise RPCPluginError(msg)
            raise_bare(self.failure)
        return self._value

    def request_stop(self) -> None:
        """Ask the session to end. Returns at once; asking again changes nothing."""
        self.stop_requested.set()
        if not self.up:
            self._scope.cancel()

    @property
    def calls_this(self) -> bool:
        """Whether the running task is the session's own, so that it cannot wait for its end."""
        return bool(self.callers) and anyio.get_current_task().id in self.callers

    def request_stop_from_anywhere(self) -> None:
        """`request_stop` for a finalizer, which may run in any thread and outlive the loop."""
        if self._call_in_loop is not None:
            # Both loops raise a RuntimeError of their own once they have ended.
            with contextlib.suppress(RuntimeError):
                self._call_in_loop(self.request_stop)

    async def join(self) -> None:
        """Wait until the session has ended, however long it takes; safe to cancel."""
        if not self._finished.is_set():
            await self._finished.wait()

    async def wait_finished(self) -> None:
        """Wait until the session has ended: shielded, and no longer than its limit.

        Where many sessions end at the same time, each has a little more.

        Cancellation:
            Takes effect afterwards. That holds for asyncio's own `Task.cancel()` as well, which
            knows nothing of shields.
        """
        if self._finished.is_set():
            return
        cancelled = anyio.get_cancelled_exc_class()
        interruption: BaseException | None = None
        from ._patience import patience  # noqa: PLC0415 - a start does not need it

        with patience(self.limit, "session", shield=True) as scope:
            while not self._finished.is_set():
                try:
                    await self._finished.wait()
                except cancelled as exc:
                    if scope.cancel_called:
                        raise
                    interruption = exc
        if scope.cancelled_caught:
            logger.warning("%s has not ended within %g seconds", self.name, self.limit)
            self._scope.cancel()
        if interruption is not None:
            raise interruption


class Operation(Coroutine[Any, Any, T], Generic[T, V]):
    """What `start()`, `stop()` and `serve()` return: a coroutine, and an async context manager.

    Nothing happens before it is awaited or entered, and it is used once. It is a real
    `collections.abc.Coroutine`, so whatever takes a coroutine, or a function that returns one,
    takes it: `asyncio.run`, `asyncio.gather`, `trio.run`, `anyio.run`, `TaskGroup.start`.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], Coroutine[Any, Any, T]],
        block: Callable[[], AbstractAsyncContextManager[V]],
    ) -> None:
        """Make an operation out of a coroutine function and a context manager's factory."""
        self.__name__ = self.__qualname__ = name
        self._run = run
        self._block = block
        self._used = False
        self._coroutine: Coroutine[Any, Any, T] | None = None
        self._manager: AbstractAsyncContextManager[V]

    def __repr__(self) -> str:
        return f"<operation {self.__name__}>"

    def _use(self) -> None:
        if self._used:
            msg = f"{self.__name__}() has been awaited or entered already; call it again"
            raise RuntimeError(msg)
        self._used = True

    def _inner(self) -> Coroutine[Any, Any, T]:
        if self._coroutine is None:
            self._use()
            self._coroutine = self._run()
        return self._coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        self._use()
        return self._run().__await__()

    def send(self, value: Any, /) -> Any:
        """Resume it, as the coroutine that it is."""
        return self._inner().send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None, /) -> Any:
        """Raise an exception where it stands; before its first step nothing has begun."""
        exc = kind if value is None else value
        if self._coroutine is None:
            self._used = True
            raise exc
        if traceback is not None:
            exc = exc.with_traceback(traceback)
        return self._coroutine.throw(exc)

    def close(self) -> None:
        """Give it up, begun or not."""
        self._used = True
        if self._coroutine is not None:
            self._coroutine.close()

    async def __aenter__(self) -> V:
        self._use()
        self._manager = self._block()
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(exc_type, exc, traceback)

    def __del__(self) -> None:
        if not getattr(self, "_used", True):
            warnings.warn(f"{self.__name__}() was never awaited", RuntimeWarning, stacklevel=2)


async def first(*waits: Callable[[], Awaitable[Any]]) -> None:
    """Wait until one of several things has happened."""
    # They do not fail, but trio may raise KeyboardInterrupt in any of them.
    with unwrapped():
        async with anyio.create_task_group() as tg:

            async def watch(wait: Callable[[], Awaitable[Any]]) -> None:
                await wait()
                tg.cancel_scope.cancel()

            for wait in waits:
                tg.start_soon(watch, wait)


@contextlib.contextmanager
def unwrapped() -> Generator[None]:
    """Let a lone exception leave one task group of ours as itself.

    Put around exactly one `async with create_task_group()`. Cancellations that came along with a
    real failure are dropped: the failure is what ended the group. Several failures stay a group,
    and a group that was raised inside as such is not touched.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        cancelled = anyio.get_cancelled_exc_class()
        others = [exc for exc in group.exceptions if not _only(cancelled, exc)]
        if len(others) == 1:
            raise_bare(others[0])
        raise


def raise_bare(exc: BaseException) -> NoReturn:
    """Raise `exc` again with the context that it had when it was first raised."""
    context, cause, suppress = exc.__context__, exc.__cause__, exc.__suppress_context__
    try:
        raise exc
    finally:
        # The raise statement has put whatever is being handled here in place of the context.
        exc.__context__, exc.__cause__, exc.__suppress_context__ = context, cause, suppress
        del exc, context, cause


def _only(kind: type[BaseException], exc: BaseException) -> bool:
    """Whether `exc` is a `kind`, or a group of nothing else."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(kind)[1] is None
    return isinstance(exc, kind)


def _warn(message: str) -> None:
    try:
        warnings.warn(message, ResourceWarning, stacklevel=2)
    except ResourceWarning as exc:
        # Warnings are errors here, and this task has nobody to raise to: report it as an
        # exception in a finalizer would be.
        report: Any = SimpleNamespace(
            exc_type=type(exc),
            exc_value=exc,
            exc_traceback=exc.__traceback__,
            err_msg=None,
            object=None,
        )
        sys.unraisablehook(report)


class _Unset:
    """The type of what stands for no value."""


_UNSET = _Unset()
_supervised_tasks: dict[asyncio.Task[None], Session[Any]] = {}


def _forget_supervised(task: asyncio.Task[None]) -> None:
    _supervised_tasks.pop(task, None)


def sessions_of_this_loop() -> list[Session[Any]]:
    """The sessions in supervised tasks of the running loop of asyncio, oldest first."""
    import asyncio  # noqa: PLC0415 - loaded only where it runs

    loop = asyncio.get_running_loop()
    return [session for task, session in list(_supervised_tasks.items()) if task.get_loop() is loop]
