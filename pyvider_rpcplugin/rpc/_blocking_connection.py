"""A connection that threads drive: whoever waits first reads for all.

Whatever is done with it is done under the lock of its channel; a thread lets go of it while it
waits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin.http2 import H2Connection, LocalSettings

from ._blocking_waits import Bell, BlockingDeadline, ThreadWaiter, poll_for
from ._call import MessageChannel
from ._compression import unpacking_error
from ._connection import DISPATCH, HIGH_WATER, LARGEST_OUTPUT, Incoming
from ._messages import message_prefix
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from grpclib.encoding.base import CodecBase
    from grpclib.protocol import Peer as _PeerBase

    from pyvider_rpcplugin.http2 import H2Stream

    from ._blocking import BlockingChannel
    from ._compression import MessageEncoding
    from ._metadata import Deadline
    from ._options import RPCOptions

    class Socket(Protocol):
        """A connected socket that never waits, and keeps what it could not send."""

        unsent: int

        def fileno(self) -> int: ...
        def address(self) -> object: ...
        def certificate(self) -> dict[str, Any] | None: ...
        def receive(self) -> bytes | None: ...
        def send(self, data: bytes | memoryview) -> None: ...
        def push(self) -> None: ...
        def drop(self) -> None: ...
        def shut_down(self) -> None: ...
        def close(self) -> None: ...

else:
    _PeerBase = object

# Larger pieces of output go to the socket as they are.
_JOINED_OUTPUT = 65_536
# So long nothing must have happened for the connection to be watched between calls, at first and
# at most: watching costs the next caller a word to the watching thread.
_QUIET = 0.1
_LONGEST_QUIET = 0.5
_GUARD_INTERVAL = 1.0


class BlockingMessages(MessageChannel):
    """Messages of a call whose waits have the call's deadline themselves."""

    __slots__ = ("_due",)

    _connection: BlockingConnection  # type: ignore[assignment]

    def __init__(
        self,
        connection: BlockingConnection,
        stream: H2Stream,
        codec: CodecBase,
        deadline: BlockingDeadline | None,
    ) -> None:
        base: Any = connection
        super().__init__(base, stream, codec, None)
        self._due = deadline

    async def wait_received(self) -> None:
        """Wait until something came in."""
        self._connection.channel.due = self._due
        await super().wait_received()

    async def _wait_sendable(self) -> None:
        self._connection.channel.due = self._due
        await super()._wait_sendable()

    async def _unpack(self, packed: bytes) -> bytes:
        limit = self._connection.options.max_receive_message_size
        encoding: Any = self.encoding_in
        try:
            return encoding.decompress(packed, limit, self._let_others_in)  # type: ignore[no-any-return]
        except (OverflowError, ValueError) as error:
            raise unpacking_error(error) from None

    @staticmethod
    async def pack_message(
        encoding: MessageEncoding,
        data: bytes,
        deadline: Deadline | None,
    ) -> tuple[bytes, bytes]:
        """A large message as it is sent, compressed."""
        packed = encoding.compress(data)
        return message_prefix(len(packed), compressed=True), packed

    async def _yield(self) -> None:
        self._rested()
        self._let_others_in()

    def _let_others_in(self) -> None:
        self._connection.channel.let_others_in()
        if self._due is not None and self._due.time_remaining() <= 0:
            raise DeadlineExceeded


class _SocketPeer(_PeerBase):
    __slots__ = ("_address", "_certificate")

    def __init__(self, sock: Socket) -> None:
        self._address = sock.address
        self._certificate = sock.certificate

    def addr(self) -> Any:
        """The peer's address: host and port, a path, or None."""
        return self._address()

    def cert(self) -> dict[str, Any] | None:
        """The peer's certificate as `ssl` gives it; None without TLS."""
        return self._certificate()


class BlockingConnection(Incoming):
    """One connection; whatever is done with it is done under the channel's lock.

    Attributes:
        options: What the channel was configured with.
        channel: Whose it is.
    """

    def __init__(self, sock: Socket, channel: BlockingChannel) -> None:
        super().__init__()
        self.options: RPCOptions = channel.options
        self.h2: H2Connection = H2Connection(
            client_side=True,
            settings=LocalSettings(max_concurrent_streams=self.options.max_concurrent_streams),
        )
        self.channel = channel
        self.peer: _PeerBase = _SocketPeer(sock)
        self.activity = 0
        self._socket = sock
        self._bell = Bell()
        self._poll = poll_for(sock, self._bell)
        self._leader: ThreadWaiter | None = None
        self._followers: dict[ThreadWaiter, None] = {}
        self._polling = False
        self._watching: anyio.CancelScope | None = None
        self._unwritable = False
        self._room_waiters: list[ThreadWaiter] = []
        self._guard_since = 0.0
        self._last_received = time.monotonic()
        self._pinged_at: float | None = None
        self._closed = False
        self.h2.initiate()
        self.flush()
        self.receive()  # Something may have come together with the end of the handshake.

    # --- what a call asks for ----------------------------------------------------------------

    def new_waiter(self) -> ThreadWaiter:
        """What the call that has the lock waits with."""
        return ThreadWaiter(self, self.channel.due)

    @property
    def has_room(self) -> bool:
        """Whether little enough is unsent for more to be added."""
        return self._unwritable or self.h2.output_size + self._socket.unsent < HIGH_WATER

    async def wait_for_room(self, waiter: ThreadWaiter) -> None:
        """Wait until `has_room` may be true."""
        self._room_waiters.append(waiter)
        try:
            self.block(waiter)
        finally:
            if waiter in self._room_waiters:
                self._room_waiters.remove(waiter)

    def flush(self) -> None:
        """Send the output, now as far as that is possible, the rest when there is room."""
        h2, sock = self.h2, self._socket
        if self._unwritable:
            h2.take_output()
        if not h2.output_size:
            return
        self.bytes_sent += h2.output_size
        try:
            if h2.output_size <= _JOINED_OUTPUT:
                sock.send(h2.take_output())
            else:
                for part in h2.take_parts():
                    sock.send(part)
        except OSError:
            self._cannot_write()  # Reading tells the peer's last words, and the end.
        if sock.unsent and self._polling:
            self._bell.ring()  # Who waits for the socket waits for room as well from now on.

    def _push(self) -> None:
        try:
            self._socket.push()
        except OSError:
            self._cannot_write()
        if self._room_waiters and self.has_room:
            self._wake_room_waiters()

    def _cannot_write(self) -> None:
        self._unwritable = True
        self._socket.drop()
        self.h2.take_output()
        self._wake_room_waiters()

    def _wake_room_waiters(self) -> None:
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            waiter.wake()

    def ring_for(self, waiter: ThreadWaiter) -> None:
        """Wake the thread that waits for the socket, if it is this waiter's."""
        if self._polling and waiter is self._leader:
            self._bell.ring()

    # --- waiting -----------------------------------------------------------------------------

    def block(self, waiter: ThreadWaiter) -> None:
        """Wait until the waiter is woken; read for all if nobody else does.

        Raises:
            DeadlineExceeded: The waiter's deadline passed first.
        """
        try:
            while not waiter.woken:
                if self._leader is None and self.lost is None:
                    self._lead(waiter)
                else:
                    self._follow(waiter)
        finally:
            if self._followers and self._leader is None and self.lost is None:
                next(iter(self._followers)).let_look()

    def _lead(self, waiter: ThreadWaiter) -> None:
        self._leader = waiter
        self.activity += 1
        if self._watching is not None:
            self.channel.call_in_loop(self._watching.cancel)
        try:
            while not waiter.woken and self.lost is None:
                self._wait_and_receive(waiter.time_left())
        finally:
            self._leader = None
            self._close_if_unused()

    def _wait_and_receive(self, seconds: float | None) -> None:
        channel = self.channel
        self._poll.wait_writable(wanted=self._socket.unsent > 0)
        self._polling = True
        raised: BaseException | None = None
        channel.release()
        try:
            found = self._poll.wait(seconds)
        except BaseException as error:
            raised = error
            raise
        finally:
            channel.acquire()
            channel.interruption = raised
            self._polling = False
        if self.lost is not None:
            return
        if self._bell.fileno() in found:
            self._bell.silence()
            if len(found) == 1:
                return
        if found:
            if self._socket.unsent:
                self._push()
            self.receive()

    def _follow(self, waiter: ThreadWaiter) -> None:
        self._followers[waiter] = None
        try:
            self.channel.follow(waiter)
        finally:
            del self._followers[waiter]

    def receive(self) -> None:
        """Take in what has arrived."""
        try:
            data = self._socket.receive()
        except OSError as error:
            broken = ConnectionError("the connection broke")
            broken.__cause__ = error
            self._end(broken)
            return
        if data is None:
            return
        if not data:
            self._end(ConnectionError("the peer closed the connection"))
            return
        now = self._last_received = time.monotonic()
        self.bytes_received += len(data)
        h2 = self.h2
        for event in h2.receive_data(data):
            DISPATCH[type(event)](self, event)
        if h2.guard.counting and now - self._guard_since >= _GUARD_INTERVAL:
            self._guard_since = now
            h2.guard.refresh()
        if h2.output_size:
            self.flush()
        if self._socket.unsent > LARGEST_OUTPUT:
            self.lose(ConnectionError("the peer does not read what it asks for"))
        if self.lost is not None:
            self._end(self.lost)

    # --- its end -----------------------------------------------------------------------------

    def _end(self, error: Exception) -> None:
        """Nothing will come in any more."""
        self.lose(error)
        if not self._closed:
            self._closed = True
            self._cannot_write()
            self._socket.shut_down()
            self.channel.connection_ended(self)
            if self._polling:
                self._bell.ring()
            for waiter in list(self._followers):
                waiter.let_look()
            self._close_if_unused()

    def close(self) -> None:
        """Say goodbye and end it; the calls that it carries are failed by who calls this."""
        if not self._closed:
            self.h2.close()
            self.flush()
            self._end(ConnectionError("the connection was closed"))

    def give_up(self, error: Exception) -> None:
        """End it without a word: a change of its state may be incomplete."""
        self._unwritable = True
        self._end(error)

    def _close_if_unused(self) -> None:
        """Close the descriptors once no thread waits on them."""
        if self._closed and not self._polling and self._watching is None and self._leader is None:
            self._socket.close()
            self._bell.close()

    def fail_calls(self, error: Callable[[], Exception]) -> None:
        """Fail all calls that it carries, each with an exception of its own."""
        for stream in list(self.h2.streams.values()):
            owner: Any = stream.owner
            if owner is not None:
                owner.on_lost(error())

    # --- between calls -----------------------------------------------------------------------

    async def watch(self) -> None:
        """Watch over it until it is lost: take in what comes while no thread waits for it."""
        quiet = _QUIET
        while True:
            seen = self.activity
            await anyio.sleep(quiet)
            with self.channel.held():
                self._keep_alive()
                if self._closed:
                    return
                if self.activity != seen or self._leader is not None or self._followers:
                    quiet = min(quiet * 2, _LONGEST_QUIET)
                    continue
                self._watching = anyio.CancelScope()
            quiet = _QUIET
            await self._watch_quiet(self._watching)

    async def _watch_quiet(self, scope: anyio.CancelScope) -> None:
        """Be the one who waits for the socket, until a call does."""
        seconds = self.options.keepalive_time or None
        try:
            with scope:
                if self._socket.unsent:
                    await anyio.wait_writable(self._socket)
                elif seconds is None:
                    await anyio.wait_readable(self._socket)
                else:
                    limit = self.options.keepalive_timeout if self._pinged_at else seconds
                    with anyio.move_on_after(limit):
                        await anyio.wait_readable(self._socket)
        finally:
            with self.channel.held():
                self._watching = None
                if self._closed:
                    self._close_if_unused()
                elif self._leader is None:
                    if self._socket.unsent:
                        self._push()
                    self.receive()

    def _keep_alive(self) -> None:
        """Probe a silent connection, and give up one that does not answer."""
        limit = self.options.keepalive_time
        if limit <= 0 or self._closed:
            return
        now, timeout = time.monotonic(), self.options.keepalive_timeout
        if self._pinged_at is not None and self._last_received < self._pinged_at:
            if now - self._pinged_at >= timeout:
                self._end(ConnectionError(f"the peer did not answer a PING within {timeout:g} s"))
        elif now - self._last_received >= limit:
            self._pinged_at = now
            self.h2.ping(b"\0\0\0\0\0\0\0\1")
            self.flush()
        else:
            self._pinged_at = None
