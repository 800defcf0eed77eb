"""The only module that knows which event loop it is on.

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

from . import _forks
from .exception import RPCPluginError

if TYPE_CHECKING:
    import asyncio
    import socket
    from types import TracebackType
    from typing import Protocol

    import trio
    from anyio.abc import TaskGroup

    AnyTaskGroup = TaskGroup | trio.Nursery | asyncio.TaskGroup

    class Cancellable(Protocol):
        """What ends one task."""

        def cancel(self) -> object:
            """Cancel the task."""

    class Spawner(Protocol):
        """Starts tasks, each of which can be cancelled."""

        def __call__(self, body: Callable[..., Any], *args: object, name: str) -> Cancellable:
            """Start one."""


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
        self.name = name
        self.limit = limit
        self.stop_requested = anyio.Event()
        self.failure: BaseException | None = None
        self.ended_by_owner = False
        # The task of the session that calls functions of the user's, which may ask it to stop.
        self.calling: int | None = None
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
        if _on_trio():
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
        return self.calling is not None and anyio.get_current_task().id == self.calling

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


class Home:
    """The event loop in which something was made: it can be used there and nowhere else.

    That is one thread of one process, whichever task it is. Elsewhere nobody would be woken, and
    two threads would write into the same buffers; a forked process has only copies of all of it.
    """

    __slots__ = ("_generation", "_here", "_loop")

    def __init__(self) -> None:
        """Remember the running loop."""
        if _on_trio():
            import trio  # noqa: PLC0415 - loaded only where it runs

            self._here: Callable[[], object] = trio.lowlevel.current_trio_token
        else:
            import asyncio  # noqa: PLC0415 - loaded only where it runs

            self._here = asyncio.get_running_loop
        self._loop = self._here()
        self._generation = _forks.generation

    def check(self, name: str) -> None:
        """Refuse to be used anywhere else. Cheap enough to be asked for each call.

        Raises:
            RPCPluginError: This is another loop, another thread, or a process that was forked off.
        """
        try:
            if self._here() is self._loop and self._generation == _forks.generation:
                return
        except RuntimeError:  # no loop of this kind runs in this thread
            pass
        if self._generation != _forks.generation:
            msg = f"{name} belongs to the process that this one was forked from"
            hint = "Start one of its own in this process, or make it without fork: "
            hint += 'multiprocessing.get_context("spawn").'
        else:
            msg = f"{name} was started on another event loop"
            hint = "Use it on the loop that started it: from other threads by anyio.from_thread; "
            hint += "with pytest-asyncio, give its fixture and the tests the same loop_scope."
        raise RPCPluginError(msg, hint=hint)


def _on_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


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


class Waiter:
    """Lets one task wait until another one of the same loop wakes it.

    It is what an `anyio.Event` is to a single waiter, at half the cost, which counts where every
    message of a call waits once. Waking nobody does nothing: who waits looks at the state first,
    and again after waking, with no await between looking and waiting.
    """

    __slots__ = ()

    async def wait(self) -> None:
        """Wait for `wake`. Cancelling is safe."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let the waiting task, if there is one, go on."""
        raise NotImplementedError

    @property
    def waiting(self) -> bool:
        """Whether a task waits that nobody has woken yet."""
        raise NotImplementedError


class _AsyncioWaiter(Waiter):
    __slots__ = ("_create_future", "_future")

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - loaded only where it runs

        self._create_future = asyncio.get_running_loop().create_future
        self._future: Any = None

    async def wait(self) -> None:
        self._future = future = self._create_future()
        try:
            await future
        finally:
            self._future = None

    def wake(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    @property
    def waiting(self) -> bool:
        return self._future is not None and not self._future.done()


class _TrioWaiter(Waiter):
    __slots__ = ("_lowlevel", "_task")

    def __init__(self) -> None:
        import trio  # noqa: PLC0415 - loaded only where it runs

        self._lowlevel = trio.lowlevel
        self._task: Any = None

    async def wait(self) -> None:
        self._task = self._lowlevel.current_task()
        await self._lowlevel.wait_task_rescheduled(self._aborted)

    def _aborted(self, _raise_cancel: object) -> Any:
        self._task = None
        return self._lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            self._lowlevel.reschedule(task)

    @property
    def waiting(self) -> bool:
        return self._task is not None


def caller_from_threads() -> Callable[[Callable[[], object]], object]:
    """What lets other threads have a function called in the running loop, without waiting for it.

    Once the loop has ended, it raises a RuntimeError.
    """
    if _on_trio():
        import trio  # noqa: PLC0415 - loaded only where it runs

        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio  # noqa: PLC0415 - loaded only where it runs

    return asyncio.get_running_loop().call_soon_threadsafe


def waiter_factory() -> Callable[[], Waiter]:
    """The kind of `Waiter` for the running loop: look it up once and make many."""
    return _TrioWaiter if _on_trio() else _AsyncioWaiter


def spawner(group: TaskGroup) -> Spawner:
    """What starts tasks in a group that the current task has just entered.

    For who starts very many: on trio a task of anyio's costs twice what one of trio's does.
    """
    if not _on_trio():

        def spawn(body: Callable[..., Any], *args: object, name: str) -> Cancellable:
            return group.start_soon(body, *args, name=name)

        return spawn

    import trio  # noqa: PLC0415 - loaded only where it runs

    start, make_scope = (
        trio.lowlevel.current_task().child_nurseries[-1].start_soon,
        trio.CancelScope,
    )

    async def scoped(scope: trio.CancelScope, body: Callable[..., Any], args: Any) -> None:
        with scope:
            await body(*args)

    def spawn_on_trio(body: Callable[..., Any], *args: object, name: str) -> Cancellable:
        scope = make_scope()
        start(scoped, scope, body, args, name=name)
        return scope

    return spawn_on_trio


# Where that much has come in there is mostly more; but the loop has others to see to.
_MUCH = 16_384
_READS_IN_A_ROW = 4


class EagerReader:
    """On asyncio: reads a socket from within the loop's own callback, for one task at a time.

    Waiting for "readable" there costs two system calls for every wait, and the bytes are then read
    an iteration later. Here the socket stays registered while its reader keeps coming back, and is
    read as soon as the loop sees it: less than half the time for each message. At most one chunk
    is held; the socket is unregistered while more is waiting, so that the sender notices.
    """

    __slots__ = (
        "_arrived",
        "_future",
        "_loop",
        "_recv",
        "_registered",
        "_socket",
        "_taker",
        "size",
    )

    def __init__(self, sock: socket.socket) -> None:
        """Prepare reading from a non-blocking socket; it stays the caller's."""
        import asyncio  # noqa: PLC0415 - loaded only where it runs

        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._recv = sock.recv
        self._taker: Callable[[bytes], bool] | None = None
        self.size: int = 0
        self._arrived: bytes | OSError | None = None
        self._future: Any = None
        self._registered = False

    def works(self) -> bool:
        """Whether this loop can call back for sockets; the one of Windows cannot."""
        try:
            self._loop.remove_reader(self._socket)
        except NotImplementedError:
            return False
        return True

    @property
    def holds_some(self) -> bool:
        """Whether something has arrived that nobody took."""
        return self._arrived is not None

    def take(self, size: int) -> bytes | None:
        """What has arrived already, b"" at the end; OSError if the connection is lost."""
        arrived = self._arrived
        if arrived is None:
            return None
        self._arrived = None
        if isinstance(arrived, OSError):
            raise arrived
        if len(arrived) > size:  # it was read for somebody who wanted more
            self._arrived = arrived[size:]
            return arrived[:size]
        return arrived

    async def wait(self, size: int) -> bytes | None:
        """Wait until something arrives, and give at most `size` bytes of it.

        Returns:
            The bytes, b"" at the end; None after `close`.

        Raises:
            OSError: The connection is lost.

        Cancellation:
            Safe: what has arrived is given next time.
        """
        self.size = size
        await self._wait()
        return self.take(size)

    async def feed(self, take: Callable[[bytes], bool]) -> None:
        """Hand what arrives to `take`, as soon as the loop sees it, until that wants no more.

        `take` runs in the loop's own callback, so that no task has to be woken for each message.
        It belongs to no task, and may start some. At most `size` bytes are read at a time.

        Args:
            take: Gets the bytes, b"" at the end; says whether it wants more.

        Raises:
            OSError: The connection is lost.
            Exception: What `take` raised.

        Cancellation:
            Safe: all that was read was taken.
        """
        self._taker = take
        try:
            await self._wait()
        finally:
            self._taker = None
            self._unregister()
        if isinstance(self._arrived, OSError):
            self.take(0)

    async def _wait(self) -> None:
        if not self._registered:
            # The callback gets a copy of the context that is current here.
            _context_outside_of_tasks().run(self._loop.add_reader, self._socket, self._read)
            self._registered = True
        self._future = future = self._loop.create_future()
        try:
            await future
        finally:
            self._future = None

    def close(self) -> None:
        """Stop reading, and wake who waits. The socket is closed by its owner."""
        self._unregister()
        self._wake()

    def _read(self) -> None:
        if self._arrived is not None:
            self._unregister()
            return
        try:
            arrived = self._recv(self.size)
            if self._taker is None:
                self._arrived = arrived
                self._wake()
                return
            for _ in range(_READS_IN_A_ROW - 1):
                if not self._hand_over(arrived, self._taker) or len(arrived) < _MUCH:
                    return
                arrived = self._recv(self.size)
            self._hand_over(arrived, self._taker)
        except BlockingIOError:
            return
        except OSError as exc:
            self._arrived = exc
            self._wake()

    def _hand_over(self, arrived: bytes, take: Callable[[bytes], bool]) -> bool:
        try:
            if take(arrived):
                return True
        except Exception as exc:  # noqa: BLE001 - boundary: the task that waits raises it
            if self._future is not None and not self._future.done():
                self._future.set_exception(exc)
        self._unregister()
        self._wake()
        return False

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self._loop.remove_reader(self._socket)


def _context_outside_of_tasks() -> contextvars.Context:
    """The current context, changed so that anyio knows without a task that asyncio is running."""
    context = contextvars.copy_context()
    sniffio: Any = sys.modules.get("sniffio")  # If it is there, anyio asks it.
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return context


def eager_reader(sock: socket.socket) -> EagerReader | None:
    """What reads this socket best on the running loop; None: wait until it is readable, and read."""
    if _on_trio():
        return None
    reader = EagerReader(sock)
    return reader if reader.works() else None
