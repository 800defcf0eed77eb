"""What anyio does not have of the running event loop, or not at that price.

This module and `_tasks` alone know which loop it is: who waits is woken at half the cost of an event,
what arrives at a socket is read by the loop's own callback, and tasks that come by the thousand are
the loop's own.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any

from . import _forks
from .exception import RPCPluginError

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Generator
    from typing import Protocol

    import trio
    from anyio.abc import TaskGroup

    class Cancellable(Protocol):
        """What ends one task."""

        def cancel(self) -> object:
            """Cancel the task."""


def on_trio() -> bool:
    """Whether the loop of the current task is that of trio."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


class Home:
    """The event loop in which something was made: it can be used there and nowhere else.

    That is one thread of one process, whichever task it is. Elsewhere nobody would be woken, and
    two threads would write into the same buffers; a forked process has only copies of all of it.
    """

    __slots__ = ("_generation", "_here", "_loop")

    def __init__(self) -> None:
        """Remember the running loop."""
        if on_trio():
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


class Waiter:
    """Lets one task wait until another one of the same loop wakes it.

    It is what an `anyio.Event` is to a single waiter, at half the cost, which counts where every
    message of a call waits once. Waking nobody does nothing: who waits looks at the state first,
    and again after waking, with no await between looking and waiting.
    """

    __slots__ = ()

    def wait(self) -> Awaitable[None]:
        """Wait for `wake`. Cancelling is safe."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let the waiting task, if there is one, go on."""
        raise NotImplementedError

    @property
    def waiting(self) -> bool:
        """Whether a task waits that nobody has woken yet."""
        raise NotImplementedError


class _Reading(threading.local):
    """Whether a callback of this thread's loop is reading, and who goes on when it has."""

    is_under_way: bool = False
    woken: list[_AsyncioWaiter] | None = None


_reading = _Reading()


def wake_at_once() -> None:
    """Let a task that is woken from here on go on as soon as the reading callback is through.

    It is for who reads what a single task waits for. Where several are woken they go on in the
    loop's next iteration, as they do without this: what they send then leaves together.
    """
    if _reading.is_under_way and _reading.woken is None:
        _reading.woken = []


class _AsyncioWaiter(Waiter):
    """What a future is to the task that awaits it, for one task at a time.

    A task gives what it awaits a function that lets it go on. A future has the loop call that in
    its next iteration. Where the loop's own callback has read what the task waits for, it is
    called from there: each message comes an iteration earlier.
    """

    __slots__ = ("_asyncio_future_blocking", "_error", "_loop", "_waits", "context", "go_on")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._waits = False
        self.go_on: Any = None
        self.context: Any = None
        self._error: BaseException | None = None
        self._asyncio_future_blocking = False

    def wait(self) -> Awaitable[None]:
        return self

    def wake(self) -> None:
        if self._waits:
            self._waits = False
            woken = _reading.woken
            if woken is None:
                self.go_on_soon()
            else:
                woken.append(self)

    @property
    def waiting(self) -> bool:
        return self._waits

    def go_on_soon(self) -> None:
        """Let the task take its next step, in the loop's next iteration."""
        self._loop.call_soon(self.go_on, self, context=self.context)

    # What a task asks of a future.

    def __await__(self) -> Generator[_AsyncioWaiter, None, None]:
        self._asyncio_future_blocking = True
        try:
            yield self
        finally:
            self._waits = False
            self.go_on = self.context = self._error = None

    def add_done_callback(self, go_on: Callable[[object], object], *, context: Any) -> None:
        """The task waits from now on."""
        self.go_on = go_on
        self.context = context
        self._waits = True

    def done(self) -> bool:
        """Whether no task waits."""
        return not self._waits

    def cancel(self, msg: object = None) -> bool:
        """End the wait by a cancellation, unless it has ended."""
        if not self._waits:
            return False
        import asyncio  # noqa: PLC0415 - loaded only where it runs

        self._waits = False
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.go_on_soon()
        return True

    def result(self) -> None:
        """How the wait has ended."""
        if self._error is not None:
            raise self._error


def _let_go_on(waiters: list[_AsyncioWaiter]) -> None:
    """Let tasks that were woken take their next steps."""
    if len(waiters) == 1:
        waiter = waiters[0]
        waiter.context.run(waiter.go_on, waiter)
        return
    for waiter in waiters:
        waiter.go_on_soon()


class _TrioWaiter(Waiter):
    __slots__ = ("_lowlevel", "_task")

    def __init__(self, lowlevel: Any) -> None:
        self._lowlevel = lowlevel
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
    if on_trio():
        import trio  # noqa: PLC0415 - loaded only where it runs

        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio  # noqa: PLC0415 - loaded only where it runs

    return asyncio.get_running_loop().call_soon_threadsafe


def waiter_factory() -> Callable[[], Waiter]:
    """What makes a `Waiter` for the running loop: look it up once and make many."""
    if on_trio():
        import trio  # noqa: PLC0415 - loaded only where it runs

        return functools.partial(_TrioWaiter, trio.lowlevel)
    import asyncio  # noqa: PLC0415 - loaded only where it runs

    return functools.partial(_AsyncioWaiter, asyncio.get_running_loop())


class Spawner:
    """Starts tasks by the thousand, in a group that the current task has just entered.

    One task more than there is work for is kept waiting. What comes next is begun by waking that
    one, and the price of a new task is paid once the work is done.
    """

    __slots__ = (
        "_cancelled",
        "_closed",
        "_context",
        "_new_waiter",
        "_rename",
        "_spare",
        "start",
    )

    def __init__(self, group: TaskGroup) -> None:
        """Start the first of them."""
        # Runs an async function in a task of its own, and returns what cancels that. The function
        # begins in any case.
        self.start: Callable[..., Cancellable]
        self.start, self._rename, self._cancelled = _starters(group)
        self._new_waiter = waiter_factory()
        # What one task changes of its context is nothing to the next.
        self._context = contextvars.copy_context()
        self._closed = False
        self._spare: _Spare | None = None
        self._keep_spare()

    def start_at_once(self, body: Callable[..., Any], *args: object, name: str) -> Cancellable:
        """The same, sooner, by the task that waits for work if there is one now."""
        spare = self._spare
        if spare is None:
            self._keep_spare()
            task: Cancellable = self.start(body, *args, name=name)
            return task
        self._spare = None
        spare.work = (body, args, name)
        spare.waiter.wake()
        return spare.task

    def close(self) -> None:
        """End the task that waits. Nothing is started any more."""
        self._closed = True
        if self._spare is not None:
            self._spare.task.cancel()

    def _keep_spare(self) -> None:
        if self._spare is None and not self._closed:
            self._spare = spare = _Spare(self._new_waiter())
            spare.task = self._context.run(self.start, self._run_spare, spare, name="spare task")

    async def _run_spare(self, spare: _Spare) -> None:
        if spare.work is None:
            try:
                await spare.waiter.wait()
            except self._cancelled:
                if spare.work is None:
                    raise
                # Its work begins all the same, and is cancelled at its first checkpoint.
        body, args, name = spare.work
        self._rename(name)
        await body(*args)
        self._keep_spare()


class _Spare:
    """A task that waits for work."""

    __slots__ = ("task", "waiter", "work")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.task: Cancellable
        self.work: Any = None


def _starters(
    group: TaskGroup,
) -> tuple[Callable[..., Any], Callable[[str], object], type[BaseException]]:
    """What starts a task in a group, what renames the running one, and what cancels one.

    On trio a task of anyio's costs twice what one of trio's does.
    """
    if not on_trio():
        import asyncio  # noqa: PLC0415 - loaded only where it runs

        current_task: Any = asyncio.current_task

        def rename(name: str) -> None:
            current_task().set_name(name)

        return group.start_soon, rename, asyncio.CancelledError

    import trio  # noqa: PLC0415 - loaded only where it runs

    start, make_scope, this_task = (
        trio.lowlevel.current_task().child_nurseries[-1].start_soon,
        trio.CancelScope,
        trio.lowlevel.current_task,
    )

    async def scoped(scope: trio.CancelScope, body: Callable[..., Any], args: Any) -> None:
        with scope:
            await body(*args)

    def start_scoped(body: Callable[..., Any], *args: object, name: str) -> trio.CancelScope:
        scope = make_scope()
        start(scoped, scope, body, args, name=name)
        return scope

    def rename_this(name: str) -> None:
        this_task().name = name

    return start_scoped, rename_this, trio.Cancelled


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
            BaseException: What `take` raised.

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
        _reading.is_under_way = True
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
        finally:
            _reading.is_under_way = False
            woken = _reading.woken
            if woken is not None:
                _reading.woken = None
                _let_go_on(woken)

    def _hand_over(self, arrived: bytes, take: Callable[[bytes], bool]) -> bool:
        try:
            if take(arrived):
                return True
        except BaseException as exc:
            self._unregister()
            if self._future is None or self._future.done():
                raise
            self._future.set_exception(exc)  # boundary: the task that waits raises it
            return False
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
    if on_trio():
        return None
    reader = EagerReader(sock)
    return reader if reader.works() else None
