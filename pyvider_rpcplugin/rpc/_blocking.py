"""A channel for threads: whoever calls drives the connection itself, without an event loop.

The calls are those of `ClientStream`. Their coroutines are run to their end at once, by the calling
thread and under the channel's lock. Where one has to wait, the thread lets go of the lock and reads
the socket: the first thread that waits does so for all of them and tells the others when something
is there for them; when its own call goes on, another one takes its place. So a lone caller crosses
to no other thread and back. `run`, in the event loop of a thread of its own, sees to what comes
between the calls.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import _forks
from pyvider_rpcplugin._interrupts import interrupts, protected
from pyvider_rpcplugin._loops import caller_from_threads, waiter_factory
from pyvider_rpcplugin.exception import RPCPluginError

from ._blocking_connection import BlockingConnection, BlockingMessages
from ._blocking_unary import UnaryCall, run_now
from ._blocking_waits import (
    BlockingDeadline,
    ThreadWaiter,
    blocking_deadline,
    wait_for,
)
from ._channel import Channel, closed_error, gone_error, lost_error
from ._client_stream import ClientStream
from ._metadata import Deadline, new_metadata
from .errors import ConnectionLost, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from anyio.abc import TaskStatus
    from grpclib.encoding.base import CodecBase
    from grpclib.metadata import Deadline as GrpclibDeadline

    from pyvider_rpcplugin.exception import PluginExit

    from ._blocking_connection import Socket
    from ._connection import Incoming, RPCConnection
    from ._interceptors import Interceptor
    from ._metadata import MetadataLike
    from ._options import RPCOptions

T = TypeVar("T")
ArgumentT = TypeVar("ArgumentT")
StreamT = TypeVar("StreamT")
SendT = TypeVar("SendT")
RecvT = TypeVar("RecvT")


class BlockingChannel(Channel):
    """Calls to one endpoint from any number of threads.

    Its calls are coroutines that `drive` runs. Its owner runs `run` in an event loop in a thread
    of its own, as long as calls are made.

    Args:
        open_socket: Opens a new connection; waits at most the seconds that it is given (None: as
            long as it likes). What it raises, callers get: a GRPCError as it is.
        scheme: `http`, or `https` where the connections are encrypted.
        options: Limits and keepalive.
        on_lost: Is awaited, by `run`, when a connection broke, before its calls fail: returns how
            the endpoint's process has ended, if it has.
        interceptors: Called before each call; they must not wait for anything.

    Attributes:
        due: The deadline of the call that has the lock.
        interruption: What has been raised while a thread waited, which harms nothing.
    """

    message_channel: Any = BlockingMessages
    deadline_type: type[Deadline] = BlockingDeadline

    def __init__(
        self,
        open_socket: Callable[[float | None], Socket],
        *,
        scheme: str = "http",
        options: RPCOptions | None = None,
        on_lost: Callable[[], Awaitable[PluginExit | None]] | None = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> None:
        super().__init__(
            _connect_nowhere,
            scheme=scheme,
            options=options,
            on_lost=on_lost,
            interceptors=interceptors,
        )
        self._open_socket = open_socket
        self._lock = threading.Lock()
        self._holder = 0
        self._generation = _forks.generation
        self._one: BlockingConnection | None = None
        self._all: set[BlockingConnection] = set()
        self._line: list[ThreadWaiter] = []
        self._occupied = 0
        self._forgotten: deque[ClientStream[Any, Any]] = deque()
        self._jobs: deque[tuple[Callable[[Any], Coroutine[Any, Any, None]], Any, str]] = deque()
        self._call_in_loop: Callable[[Callable[[], object]], object] | None = None
        self.due: BlockingDeadline | None = None
        self.interruption: BaseException | None = None

    # --- the lock ----------------------------------------------------------------------------

    def acquire(self) -> None:
        """Take the lock."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            if self._holder == threading.get_ident():
                msg = "a call was begun from within a call of the same thread on the same channel"
                raise RuntimeError(msg)
            lock.acquire()
        self._holder = threading.get_ident()

    def release(self) -> None:
        """Let go of the lock."""
        self._holder = 0
        self._lock.release()

    @contextlib.contextmanager
    def held(self) -> Any:
        """Hold the lock for a block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def let_others_in(self) -> None:
        """Let other threads have the lock for a moment."""
        self.release()
        try:
            time.sleep(0)
        finally:
            self.acquire()

    def block(self, waiter: ThreadWaiter) -> None:
        """Wait until the waiter is woken.

        Raises:
            DeadlineExceeded: The waiter's deadline passed first.
        """
        while not waiter.woken:
            self.follow(waiter)

    def ring_for(self, waiter: ThreadWaiter) -> None:
        """Nobody waits for a socket here."""

    def follow(self, waiter: ThreadWaiter) -> None:
        """Wait without the lock until somebody lets the waiter look at the state again."""
        seconds = waiter.time_left()
        gate = waiter.gate = threading.Lock()
        gate.acquire()
        raised: BaseException | None = None
        self.release()
        try:
            wait_for(gate, seconds)
        except BaseException as error:
            raised = error
            raise
        finally:
            self.acquire()
            self.interruption = raised
            waiter.gate = None

    # --- calls -------------------------------------------------------------------------------

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that uses this channel's calls and nothing of an event loop.

        Raises:
            BaseException: What the coroutine raises; KeyboardInterrupt where it waits.
        """
        try:
            return self._drive(coroutine)
        finally:
            if interrupts.pending:
                interrupts.deliver()

    @protected
    def _drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            value: T = self._locked(run_now, coroutine)
        finally:
            coroutine.close()  # It may never have begun.
        return value

    def _locked(self, function: Callable[[ArgumentT], T], argument: ArgumentT) -> T:
        """Call a function under the lock."""
        if _forks.generation != self._generation:
            msg = "this channel was made before os.fork(): it belongs to the parent process"
            raise RPCPluginError(msg, hint="Start a client of its own in each process.")
        self.acquire()
        try:
            return function(argument)
        except Exception:
            raise
        except BaseException as error:
            if error is not self.interruption:
                # It may have come in the middle of anything.
                self._give_up(error)
            raise
        finally:
            self.interruption = None
            if self._forgotten:
                self._close_forgotten()
            self.release()

    def unary(
        self,
        name: str,
        types: tuple[Any, Any],
        message: Any,
        timeout: float | None,
        metadata: MetadataLike | None,
    ) -> Any:
        """Make the whole of a call with one message each way.

        Args:
            name: The full path.
            types: Those of the request and of the reply.
            message: The request.
            timeout: Seconds that it may take.
            metadata: What is sent with it.

        Raises:
            GRPCError: The call has failed.
            DeadlineExceeded: The deadline passed.
        """
        try:
            return self._unary(name, types, message, timeout, metadata)
        finally:
            if interrupts.pending:
                interrupts.deliver()

    @protected
    def _unary(
        self,
        name: str,
        types: tuple[Any, Any],
        message: Any,
        timeout: float | None,
        metadata: MetadataLike | None,
    ) -> Any:
        if self.interceptors or self.events.active or self.encoding is not None:
            options: Any = {"timeout": timeout, "metadata": metadata}
            kind = Cardinality.UNARY_UNARY
            return self._drive(self.request(name, kind, *types, **options).unary(message))
        call = UnaryCall(
            self,
            name,
            types,
            message,
            new_metadata(metadata) if metadata else None,
            self.due_of(timeout, None),
        )
        return self._locked(UnaryCall.run, call)

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[SendT],
        reply_type: type[RecvT],
        *,
        timeout: float | None = None,
        deadline: GrpclibDeadline | None = None,
        metadata: MetadataLike | None = None,
        codec: CodecBase | None = None,
    ) -> ClientStream[SendT, RecvT]:
        """Prepare a call, as `Channel.request` does; `drive` its methods."""
        return ClientStream(
            self,
            name,
            new_metadata(metadata) if metadata else None,
            cardinality,
            request_type,
            reply_type,
            self.due_of(timeout, deadline),
            codec,
        )

    def prepare(
        self, make: Callable[[Channel, Deadline | None], StreamT], timeout: float | None
    ) -> StreamT:
        """Prepare a call in another way: `make` is given the channel and the deadline."""
        return make(self, self.due_of(timeout, None))

    def due_of(
        self, timeout: float | None, deadline: GrpclibDeadline | None
    ) -> BlockingDeadline | None:
        """By when a call that begins now must be complete; see `request`."""
        if timeout == math.inf and deadline is None:
            return None
        due = blocking_deadline(timeout, deadline)
        if due is None and self.options.default_timeout is not None:
            due = BlockingDeadline.from_timeout(self.options.default_timeout)
        return due

    def forget(self, stream: ClientStream[Any, Any]) -> None:
        """Give up a call from a finalizer, which may run anywhere: even under this lock."""
        self._forgotten.append(stream)
        if self._lock.acquire(blocking=False):
            self._holder = threading.get_ident()
            try:
                self._close_forgotten()
            finally:
                self.release()
        else:  # Whoever holds it may have looked already.
            with contextlib.suppress(RuntimeError):
                self.call_in_loop(self._close_forgotten_later)

    def _close_forgotten_later(self) -> None:
        with self.held():
            self._close_forgotten()

    def _close_forgotten(self) -> None:
        while self._forgotten:
            self._forgotten.popleft().abandon()

    def connection_now(self) -> RPCConnection | None:
        """The connection if a call can begin on it at once."""
        connection: Any = self._one
        if connection is None or self._line or not self._usable(connection):
            return None
        found: RPCConnection = connection
        return found

    async def wait_connection(self, deadline: Deadline | None) -> RPCConnection:
        """Wait until a call can begin: for a connection, and for its turn on it.

        Raises:
            GRPCError: UNAVAILABLE, the channel is closed or cannot connect.
            DeadlineExceeded: The deadline passed first.
        """
        due: Any = deadline
        while True:
            if self._closed:
                raise GRPCError(Status.UNAVAILABLE, "the channel is not open")
            connection: Any = self._one
            if self._occupied:
                self._wait_in_line(ThreadWaiter(self, due))
            elif connection is None or not (
                connection.h2.accepts_requests and not connection.draining
            ):
                self._connect_now(due)
            elif self._usable(connection):
                found: RPCConnection = connection
                return found
            else:
                self._wait_in_line(ThreadWaiter(connection, due))

    def _wait_in_line(self, waiter: ThreadWaiter) -> None:
        self._line.append(waiter)
        try:
            waiter.place.block(waiter)
        finally:
            if waiter in self._line:
                self._line.remove(waiter)

    def _connect_now(self, due: BlockingDeadline | None) -> None:
        self._occupied += 1
        self.release()
        raised: BaseException | None = None
        try:
            sock = self._open_socket(None if due is None else due.time_remaining())
        except BaseException as error:
            raised = error
            if isinstance(error, RPCPluginError | OSError):
                if due is not None and due.time_remaining() <= 0:
                    raise DeadlineExceeded from error
                msg = f"could not connect: {error}"
                raise ConnectionLost(msg) from error
            raise
        finally:
            self.acquire()
            self.interruption = raised
            self._occupied -= 1
            self._wake_line()
        if self._closed:
            sock.close()
            return
        self._one = connection = BlockingConnection(sock, self)
        connection.on_change = self._on_change
        self._all.add(connection)
        self._let_helper(BlockingConnection.watch, connection)

    def connect(self, timeout: float | None = None) -> None:
        """Connect now, where calls would do it otherwise.

        Raises:
            GRPCError: UNAVAILABLE, nobody can be connected to.
            DeadlineExceeded: It took too long.
        """
        due = None if timeout is None else BlockingDeadline.from_timeout(timeout)
        self.drive(self.wait_connection(due))

    def stream_closed(self) -> None:
        """A call has ended: another one may take its place."""
        if self._line:
            self._wake_line()
        if len(self._all) > 1 or self._one is None or self._one.draining:
            self._close_retired()

    def _close_retired(self) -> None:
        for connection in list(self._all):
            retired = connection.draining or not connection.h2.accepts_requests
            if retired and connection.lost is None and not connection.h2.streams:
                connection.close()

    def _on_change(self) -> None:
        self._wake_line()
        self._close_retired()

    def _wake_line(self) -> None:
        for waiter in self._line:
            waiter.wake()

    def live_connections(self) -> tuple[Incoming, ...]:
        """The connections that are open."""
        return tuple(self._all)

    def calls_waiting(self) -> int:
        """How many calls wait for a connection, or for their turn on it."""
        return len(self._line)

    # --- the end of a connection -------------------------------------------------------------

    def connection_ended(self, connection: BlockingConnection) -> None:
        """A connection has ended: find out why, and then fail its calls."""
        self._all.discard(connection)
        sent, received = self._ended_bytes
        self._ended_bytes = (sent + connection.bytes_sent, received + connection.bytes_received)
        if self._one is connection:
            self._one = None
        self._wake_line()
        if not connection.h2.streams:
            return
        if self._running and not self._closed:
            # New calls wait meanwhile: there may be nothing to connect to.
            self._occupied += 1
            if self._let_helper(self._explain_end, connection):
                return
            self._occupied -= 1
        self._fail_calls(connection, None)

    def _fail_calls(self, connection: Any, ended: Any) -> None:
        if self._closed:
            connection.fail_calls(closed_error)
        elif ended is not None:
            connection.fail_calls(lambda: gone_error(ended))
        else:
            connection.fail_calls(lambda: lost_error(str(connection.lost), connection.lost))

    def _give_up(self, error: BaseException) -> None:
        """A signal's handler has raised in the middle of something."""
        for connection in list(self._all):
            cause = ConnectionError(f"it was given up: {type(error).__name__} came in between")
            connection.give_up(cause)
            self._fail_calls(connection, None)

    def call_in_loop(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop that `run` runs in."""
        if self._call_in_loop is not None:
            self._call_in_loop(function)

    # --- the helper --------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """See to what comes between the calls, until `close`.

        Cancellation:
            Closes the channel.
        """
        self._manager = waiter_factory()()
        self._call_in_loop = caller_from_threads()
        try:
            async with anyio.create_task_group() as tasks:
                self._running = True
                task_status.started()
                while not self._closed:
                    while self._jobs:
                        function, argument, name = self._jobs.popleft()
                        tasks.start_soon(function, argument, name=name)
                    await self._manager.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._running = False
            self.close()
            with self.held():
                while self._jobs:  # Nobody will find out now why it ended.
                    function, argument, _ = self._jobs.popleft()
                    if function == self._explain_end:
                        self._note_end(argument, None)

    def _let_helper(
        self, function: Callable[[Any], Coroutine[Any, Any, None]], argument: Any
    ) -> bool:
        """Have a coroutine function called in the helper's loop; False if it has ended."""
        self._jobs.append((function, argument, "blocking connection"))
        try:
            self.call_in_loop(self._wake_manager)
        except RuntimeError:
            return False
        return True

    async def _explain_end(self, connection: BlockingConnection) -> None:
        ended: PluginExit | None = None
        try:
            if self._on_lost is not None:
                ended = await self._on_lost()
        finally:
            with self.held():
                self._note_end(connection, ended)

    def _note_end(self, connection: BlockingConnection, ended: PluginExit | None) -> None:
        self._occupied -= 1
        self._fail_calls(connection, ended)
        self._wake_line()

    def close(self) -> None:
        """End the channel: running calls end with CANCELLED, later ones with UNAVAILABLE.

        Returns at once and may be called again, from any thread.
        """
        self.acquire()
        try:
            if self._closed:
                return
            self._closed = True
            for connection in list(self._all):
                connection.fail_calls(closed_error)
                connection.close()
            self._wake_line()
        finally:
            self.release()
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            self.call_in_loop(self._wake_manager)


async def _connect_nowhere() -> Any:
    msg = "a blocking channel connects by itself"
    raise RuntimeError(msg)
