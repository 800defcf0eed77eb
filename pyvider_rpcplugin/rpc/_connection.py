"""One HTTP/2 connection on a byte stream: one task that reads, one that writes.

All that a call does is a change of the state machine and of its output buffer, with no await
between the two; then `flush` either sends at once, without waiting, or leaves it to the writing
task. Nobody else touches the stream. So a call that is cancelled never tears a frame of another.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.abc import SocketAttribute

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._loops import Waiter, waiter_factory, wake_at_once
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.http2 import (
    ConnectionFaulted,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    H2Connection,
    H2Stream,
    LocalSettings,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteStream
    from grpclib.protocol import Peer as _PeerBase

    from pyvider_rpcplugin.http2 import HeaderBlock

    from ._options import RPCOptions
else:
    _PeerBase = object

logger = event_logger(__name__)

_RECEIVE_SIZE = 262_144
# Senders wait while this much is unsent; what a peer makes us answer may grow to the second bound.
HIGH_WATER = 1 << 20
LARGEST_OUTPUT = 16 << 20
_GUARD_INTERVAL = 1.0
_LAST_WORDS_TIMEOUT = 1.0
# Up to so many calls each send is worth a system call of its own; beyond, output is gathered
# until there is a batch: of a few calls, so that the peer works on them while this side works on the
# next, or of many messages of a stream. Two more streams stand open between a host and its plugin all
# the time, and are mostly silent. Large content is left to the writing task, which does not copy it.
_FEW_STREAMS = 4
_BATCH_OF_CALLS = 512
_BATCH_OF_MESSAGES = 4096
_LARGEST_BATCH = 65_536
# Of one call there come headers, content, and trailers at a time. After so many reads in a row that
# held no more than that, somebody waits for each, and it is seen to before all else.
_ONE_ANSWER = 3
_OFTEN_ALONE = 16

_connection_numbers = itertools.count(1)


class StreamOwner(Protocol):
    """What the connection tells the call that a stream belongs to. None of it may block."""

    def on_headers(self, headers: HeaderBlock, *, end_stream: bool) -> None:
        """The response's header section."""

    def on_data(self, data: bytes | memoryview, *, end_stream: bool) -> None:
        """Content."""

    def on_trailers(self, headers: HeaderBlock) -> None:
        """The trailer section."""

    def on_reset(self, event: StreamReset) -> None:
        """The stream ended early."""

    def on_window(self) -> None:
        """More may be sent."""

    def on_lost(self, error: Exception) -> None:
        """The connection is gone."""


class Peer(_PeerBase):
    """Who is at the other end of a connection, in grpclib's words."""

    __slots__ = ("_stream",)

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def addr(self) -> Any:
        """The peer's address: host and port, a path, or None."""
        return self._stream.extra(SocketAttribute.remote_address, None)

    def cert(self) -> dict[str, Any] | None:
        """The peer's certificate as `ssl.SSLSocket.getpeercert` gives it; None without TLS."""
        from anyio.streams.tls import TLSAttribute  # noqa: PLC0415 - loads ssl

        return self._stream.extra(TLSAttribute.peer_certificate, None)

    def certificate(self) -> bytes | None:
        """The peer's certificate in DER; None without one."""
        from anyio.streams.tls import TLSAttribute  # noqa: PLC0415 - loads ssl

        return self._stream.extra(TLSAttribute.peer_certificate_binary, None)


class Incoming:
    """The part of a connection that tells calls what came in, whoever drives it: tasks or threads.

    Attributes:
        h2: The state machine.
        peer: Who is at the other end.
        ready: The peer's SETTINGS have come.
        draining: No new calls may be made: the peer is going away, or we are.
        lost: Why the connection ended; None while it has not.
        on_change: Called when one of these has changed.
        early: Octets of messages that are not complete, and were given back to the peer already:
            beyond the windows, that is what it can make us hold.
        bytes_sent: Octets that have left, on the level of HTTP/2.
        bytes_received: Octets that have come.
        rtt: Seconds that the answer to the last PING took; None if there was none.
    """

    h2: H2Connection
    peer: _PeerBase

    def __init__(self) -> None:
        self.ready: bool = False
        self.draining: bool = False
        self.lost: Exception | None = None
        self.on_change: Callable[[], None] | None = None
        self.early: int = 0
        self.bytes_sent: int = 0
        self.bytes_received: int = 0
        self.rtt: float | None = None
        self._accept: Callable[[H2Stream, HeaderBlock, bool], None] | None = None

    def lose(self, error: Exception) -> None:
        """Note that the connection has ended, and why; the first reason counts."""
        if self.lost is None:
            self.lost = error
            self.draining = True

    def pinged(self, payload: bytes) -> None:
        """The peer has answered a PING."""

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _on_request(self, event: RequestReceived) -> None:
        if self._accept is not None:
            self._accept(event.stream, event.headers, event.end_stream)

    def _on_response(self, event: ResponseReceived) -> None:
        owner: Any = event.stream.owner
        if owner is not None:
            owner.on_headers(event.headers, end_stream=event.end_stream)

    def _on_data(self, event: DataReceived) -> None:
        owner: Any = event.stream.owner
        if owner is not None:
            owner.on_data(event.data, end_stream=event.end_stream)
        else:
            self.h2.release(event.stream)

    def _on_trailers(self, event: TrailersReceived) -> None:
        owner: Any = event.stream.owner
        if owner is not None:
            owner.on_trailers(event.headers)

    def _on_reset(self, event: StreamReset) -> None:
        owner: Any = event.stream.owner
        if not event.by_peer:
            # Not louder: a peer can cause as many as it likes.
            logger.info("rpc.stream.fault id=%d %s", event.stream.stream_id, event.reason)
        if owner is not None:
            owner.on_reset(event)

    def _on_window(self, event: WindowOpened) -> None:
        streams = self.h2.streams.values() if event.stream is None else (event.stream,)
        for stream in streams:
            owner: Any = stream.owner
            if owner is not None:
                owner.on_window()

    def _on_settings(self, _event: SettingsReceived) -> None:
        self.ready = True
        self._changed()

    def _on_ping_ack(self, event: PingAcknowledged) -> None:
        self.pinged(event.payload)

    def _on_goaway(self, event: GoAwayReceived) -> None:
        logger.debug(
            "rpc.connection.goaway code=%d last_stream=%d debug=%r",
            event.code,
            event.last_stream_id,
            event.debug[:100],
        )
        self.draining = True
        self._changed()

    def _on_fault(self, event: ConnectionFaulted) -> None:
        logger.warning("rpc.connection.fault peer=%s %s", self.peer.addr(), event.fault)
        self.lose(ConnectionError(f"the peer broke the protocol: {event.fault.reason}"))


DISPATCH: dict[type[Event], Callable[[Incoming, Any], None]] = {
    RequestReceived: Incoming._on_request,  # noqa: SLF001  # the table belongs to the class
    ResponseReceived: Incoming._on_response,  # noqa: SLF001
    DataReceived: Incoming._on_data,  # noqa: SLF001
    TrailersReceived: Incoming._on_trailers,  # noqa: SLF001
    StreamReset: Incoming._on_reset,  # noqa: SLF001
    WindowOpened: Incoming._on_window,  # noqa: SLF001
    SettingsReceived: Incoming._on_settings,  # noqa: SLF001
    PingAcknowledged: Incoming._on_ping_ack,  # noqa: SLF001
    GoAwayReceived: Incoming._on_goaway,  # noqa: SLF001
    ConnectionFaulted: Incoming._on_fault,  # noqa: SLF001
}


class RPCConnection(Incoming):
    """The engine of one connection; `run` is its life.

    Args:
        stream: The byte stream; closed when `run` ends.
        client_side: Which side this is.
        options: What the owner was configured with.
        accept: On a server, what to do with a new call.

    """

    # As in the base: they are assigned here, too, which pyright takes for others without a type.
    bytes_sent: int
    bytes_received: int
    rtt: float | None

    def __init__(
        self,
        stream: ByteStream,
        *,
        client_side: bool,
        options: RPCOptions,
        accept: Callable[[H2Stream, HeaderBlock, bool], None] | None = None,
    ) -> None:
        super().__init__()
        self.h2: H2Connection = H2Connection(
            client_side=client_side,
            settings=LocalSettings(max_concurrent_streams=options.max_concurrent_streams),
        )
        self.options = options
        self.stream = stream
        self.peer: _PeerBase = Peer(stream)
        self.new_waiter: Callable[[], Waiter] = waiter_factory()
        self.number: int = next(_connection_numbers)
        self._accept = accept
        self._send_nowait: Callable[[bytes], int] | None = getattr(stream, "send_nowait", None)
        self._may_send_now = True
        self._unsent = b""
        self._sending = False
        self._closing = False
        # How often in a row what came was of a single call, beside the two that always stand open:
        # a server still has that one, a client has it no more.
        self._alone = 0
        self._beside_one = 2 if client_side else 3
        self._writer = self.new_waiter()
        self._room_waiters: list[Waiter] = []
        self._last_received = 0.0
        self._ping_number = 0
        self._pong = anyio.Event()
        self._guard_since = 0.0
        # Large messages are decompressed one after the other.
        self.unpacking: anyio.Lock | None = None
        self._read_scope: anyio.CancelScope | None = None
        self._unwritable = False

    # --- its life --------------------------------------------------------------------------

    async def run(self) -> None:
        """Read and write until the connection ends, by the peer, by `close`, or by cancellation.

        Afterwards the stream is closed and `lost` says why. The streams' owners are not told:
        that is for the caller, who may know more about the reason.
        """
        self.h2.initiate()
        try:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._run_writer, name=f"rpc writer {self.number}")
                    if self.options.keepalive_time > 0:
                        tasks.start_soon(self._keep_alive, name=f"rpc keepalive {self.number}")
                    if self._accept is not None:
                        tasks.start_soon(self._expect_settings, name=f"rpc preface {self.number}")
                    self.flush()
                    await self._read()
                    await self._send_last_words()
                    tasks.cancel_scope.cancel()
        finally:
            self.lose(ConnectionError("the connection was closed"))
            self._changed()
            with anyio.move_on_after(_LAST_WORDS_TIMEOUT, shield=True):
                await self.stream.aclose()

    async def _expect_settings(self) -> None:
        """End a connection whose client says nothing; towards a server, the channel does it."""
        timeout = self.options.settings_timeout
        await anyio.sleep(timeout)
        if not self.ready:
            logger.warning("rpc.connection.silent peer=%s for_s=%g", self.peer.addr(), timeout)
            self.give_up(f"within {timeout:g} s")

    def give_up(self, reason: str) -> None:
        """End a connection whose client has sent no HTTP/2."""
        self.lose(ConnectionError(f"the client sent no HTTP/2: {reason}"))
        self._stop_reading()

    def close(self) -> None:
        """Take nothing more in; what is queued, and a GOAWAY, is still sent. Then `run` ends."""
        if not self._closing:
            self._closing = True
            self.draining = True
            self.h2.close()
            self.lose(ConnectionError("the connection was closed"))
            self.flush()
            # The reader waits for the peer: closing the stream under it is what ends it.
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._read_scope is not None:
            self._read_scope.cancel()

    async def _read(self) -> None:
        with anyio.CancelScope() as self._read_scope:
            try:
                await self._take_all()
            except anyio.EndOfStream:
                self.lose(ConnectionError("the peer closed the connection"))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                broken = ConnectionError("the connection broke")
                broken.__cause__ = error
                self.lose(broken)

    async def _take_all(self) -> None:
        if self._ending:
            return
        stream: Any = self.stream
        feed = getattr(stream, "feed", None)
        if feed is not None:
            await feed(self._take)
            return
        while self._take(await stream.receive(_RECEIVE_SIZE)):
            pass

    @property
    def _ending(self) -> bool:
        return self._closing or self.lost is not None

    def _take(self, data: bytes) -> bool:
        """See to what came in; say whether there is use for more."""
        h2 = self.h2
        self.bytes_received += len(data)
        if self.options.keepalive_time > 0:
            self._last_received = anyio.current_time()
        self._may_send_now = True
        events = h2.receive_data(data)
        if len(events) > _ONE_ANSWER or len(h2.streams) > self._beside_one:
            self._alone = 0
        elif self._alone < _OFTEN_ALONE:
            self._alone += 1
        else:
            wake_at_once()
        for event in events:
            DISPATCH[type(event)](self, event)
        if h2.guard.counting:
            self._refresh_guard()
        if h2.output_size:
            self.flush()
            if h2.output_size > LARGEST_OUTPUT:
                reason = "the peer does not read what it asks for"
                logger.warning("rpc.connection.unread peer=%s %s", self.peer.addr(), reason)
                h2.close(ErrorCode.ENHANCE_YOUR_CALM, reason)
                self.lose(ConnectionError(reason))
        return not self._ending

    def _refresh_guard(self) -> None:
        now = anyio.current_time()
        if now - self._guard_since >= _GUARD_INTERVAL:
            self._guard_since = now
            self.h2.guard.refresh()

    @property
    def is_waited_for(self) -> bool:
        """Whether calls come one at a time, so that each is worth to be begun before all else."""
        return self._alone == _OFTEN_ALONE

    async def _run_writer(self) -> None:
        try:
            await self._write()
        finally:  # Who waits for the last words to be sent need not wait any longer.
            self._unwritable = True
            self._wake_room_waiters()

    async def _write(self) -> None:
        while True:
            if not self.h2.output_size and not self._unsent:
                self._may_send_now = True
                await self._writer.wait()
                continue
            self._sending = True
            try:
                await self._send_queued()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                self._unwritable = True
                await self._give_up_writing(error)
                return
            finally:
                self._sending = False
            self._wake_room_waiters()

    async def _send_queued(self) -> None:
        """Send what is queued. Nothing of it is kept, or an idle connection would hold a message."""
        pieces = self._take_pieces()
        self._wake_room_waiters()  # They may fill the buffer again while this is sent.
        stream: Any = self.stream
        send_parts = getattr(stream, "send_parts", None)
        if send_parts is not None:
            await send_parts(pieces)
            self.bytes_sent += sum(map(len, pieces))
            return
        for piece in pieces:
            await stream.send(piece)
            self.bytes_sent += len(piece)

    async def _give_up_writing(self, error: Exception) -> None:
        """Let the reader see the peer's last frames, and the end; not every peer sends one."""
        self._wake_room_waiters()
        await anyio.sleep(_LAST_WORDS_TIMEOUT)
        broken = ConnectionError("the peer does not read any more")
        broken.__cause__ = error
        self.lose(broken)
        self._stop_reading()

    def _take_pieces(self) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = [self._unsent] if self._unsent else []
        self._unsent = b""
        if self._send_nowait is None:
            pieces.append(self.h2.take_output())  # Others' streams may want bytes.
        else:
            pieces += self.h2.take_parts()
        return pieces

    def _wake_room_waiters(self) -> None:
        if self._room_waiters and (self.has_room or self._unwritable):
            waiters, self._room_waiters = self._room_waiters, []
            for waiter in waiters:
                waiter.wake()

    async def _send_last_words(self) -> None:
        """Give the writer a moment for a GOAWAY and for what was queued before it."""
        with anyio.move_on_after(_LAST_WORDS_TIMEOUT, shield=True):
            while self._has_last_words:
                waiter = self.new_waiter()
                self._room_waiters.append(waiter)
                self._writer.wake()
                await waiter.wait()

    @property
    def _has_last_words(self) -> bool:
        if self._unwritable or not (self._closing or self.h2.closed):
            return False
        return bool(self.h2.output_size or self._unsent or self._sending)

    async def _keep_alive(self) -> None:
        time, timeout = self.options.keepalive_time, self.options.keepalive_timeout
        self._last_received = anyio.current_time()
        while True:
            await anyio.sleep_until(self._last_received + time)
            if anyio.current_time() < self._last_received + time:
                continue
            self._ping_number += 1
            self._pong = anyio.Event()
            began = anyio.current_time()
            self.h2.ping(self._ping_number.to_bytes(8, "big"))
            self.flush()
            with anyio.move_on_after(timeout):
                await self._pong.wait()
                self.rtt = anyio.current_time() - began
                continue
            self.lose(ConnectionError(f"the peer did not answer a PING within {timeout:g} s"))
            self._stop_reading()
            return

    def pinged(self, payload: bytes) -> None:
        """The peer has answered a PING; only the last one's answer counts."""
        if int.from_bytes(payload, "big") == self._ping_number:
            self._pong.set()

    # --- sending ---------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether little enough is unsent for more to be added."""
        return self.h2.output_size + len(self._unsent) < HIGH_WATER

    async def wait_for_room(self, waiter: Waiter) -> None:
        """Wait until `has_room` may be true."""
        self._room_waiters.append(waiter)
        try:
            await waiter.wait()
        finally:
            if waiter in self._room_waiters:
                self._room_waiters.remove(waiter)

    def flush(self) -> None:
        """See to it that the output is sent, without waiting.

        The first output after something was received goes out at once: that is the call or the
        answer that somebody waits for. What follows before the loop gets to the writing task is
        gathered there, and so is everything while many calls are in flight; but not too much of
        it, for the peer could work on it meanwhile.
        """
        if self._should_send_now():
            self._may_send_now = False
            data = self.h2.take_output()
            try:
                sent = self._send_nowait(data) if self._send_nowait is not None else 0
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                sent = 0  # The writer finds the same, and sees to it.
            self.bytes_sent += sent
            if sent == len(data):
                return
            self._unsent = data[sent:]
        self._writer.wake()

    def _should_send_now(self) -> bool:
        if self._send_nowait is None or self._sending or self._unsent:
            return False
        size = self.h2.output_size
        if len(self.h2.streams) > _FEW_STREAMS:
            return _BATCH_OF_CALLS <= size <= _LARGEST_BATCH
        return (self._may_send_now or size >= _BATCH_OF_MESSAGES) and size <= _LARGEST_BATCH
