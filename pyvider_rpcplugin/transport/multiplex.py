"""Many byte streams over one connection (yamux), as go-plugin has it for containers."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, final

import anyio
from anyio import lowlevel
from anyio.abc import ByteStream

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport.base import StreamListener
from pyvider_rpcplugin.yamux import (
    DataReceived,
    PingAcknowledged,
    SessionFaulted,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
    YamuxError,
    YamuxSession,
)

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskStatus

    from pyvider_rpcplugin.yamux import Event, YamuxStream

__all__ = ["MultiplexedListener", "MultiplexedStream", "Multiplexer"]

logger: logging.Logger = event_logger(__name__)

_READ_SIZE = 262_144
# Senders wait while so much of all streams together is unsent.
_HIGH_WATER = 1 << 20
_PING_INTERVAL = 30.0
_PING_TIMEOUT = 10.0
# What we have closed and the peer has not is given up after this long.
_LINGER = 60.0
_MOST_LINGERING = 1024
_LAST_WORDS_TIMEOUT = 1.0
_REFRESH_INTERVAL = 1.0
# Pieces up to this size are joined while they wait: as objects of their own they would take many
# times their octets, and nobody may ever accept the stream.
_SMALL_PIECE = 1024
_JOINED_SIZE = 65_536
# More than the backlog of one connection: then there are some that were given up among those that
# wait to be accepted.
_MANY_WAITING = 512


class Multiplexer:
    """One connection and the streams on it; `run` is its life.

    Args:
        stream: The connection. It is closed when `run` ends.
        client: Whether this side has made the connection.
        on_stream: Is given each stream that the peer opens, at once; it has to be accepted or
            closed sooner or later.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        client: bool,
        on_stream: Callable[[MultiplexedStream], object],
    ) -> None:
        self._stream = stream
        self._session = YamuxSession(client=client)
        self._on_stream = on_stream
        self._changed = anyio.Event()  # there is output, or room for more of it
        self._answered = anyio.Event()
        self._closed = anyio.Event()
        self._lingering: deque[tuple[float, YamuxStream]] = deque()
        self._sending = False
        self._refreshed_at = 0.0
        self.lost: str | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry what the streams send and receive until the connection ends, or `close`.

        Cancellation:
            Closes the connection, and so all streams.
        """
        try:
            with unwrapped():
                async with anyio.create_task_group() as tg:
                    tg.start_soon(self._read)
                    tg.start_soon(self._write)
                    tg.start_soon(self._keep_alive)
                    task_status.started()
                    await self._closed.wait()
                    tg.cancel_scope.cancel()
        finally:
            self._end("the connection was closed")
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)

    def close(self) -> None:
        """End the connection and all streams."""
        self._end("the connection was closed")

    def open(self) -> MultiplexedStream:
        """Open a stream; the peer may accept it later.

        Raises:
            TransportError: The connection is over, or the peer takes no more streams.
        """
        if self.lost is not None:
            msg = f"no more streams on this connection: {self.lost}"
            raise TransportError(msg)
        try:
            stream = self._session.open()
        except YamuxError as exc:
            msg = f"no more streams on this connection: {exc}"
            raise TransportError(msg) from exc
        opened = MultiplexedStream(self, stream)
        self.notify()
        return opened

    async def flush(self) -> None:
        """Wait until all that was said has been sent, or cannot be any more."""
        while self.lost is None and (self._sending or self._session.output_size):
            await self._changed.wait()

    # --- for the streams ---------------------------------------------------------------------

    @property
    def session(self) -> YamuxSession:
        """The state machine."""
        return self._session

    @property
    def changed(self) -> anyio.Event:
        """Set, and replaced, when there is something to send, or room for more."""
        return self._changed

    @property
    def has_room(self) -> bool:
        """Whether more may be queued."""
        return self._session.output_size < _HIGH_WATER

    def notify(self) -> None:
        """Wake who waits for output or for room."""
        self._changed.set()
        self._changed = anyio.Event()

    def linger(self, stream: YamuxStream) -> None:
        """Give `stream` up some time later, if the peer has not closed it by then."""
        if len(self._lingering) >= _MOST_LINGERING:
            self._session.reset(self._lingering.popleft()[1])
        self._lingering.append((anyio.current_time() + _LINGER, stream))

    # --- its tasks ---------------------------------------------------------------------------

    async def _read(self) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while self.lost is None:
                self._see(self._session.receive(await self._stream.receive(_READ_SIZE)))
                if self._session.idle:
                    self._refresh()
                if self._session.output_size:
                    self.notify()
            # Whoever writes tells the peer why, if that still listens.
            with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
                await self._closed.wait()
        self._end("the peer closed the connection")

    def _refresh(self) -> None:
        now = anyio.current_time()
        if now - self._refreshed_at >= _REFRESH_INTERVAL:
            self._refreshed_at = now
            self._session.refresh()

    def _see(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case StreamOpened(stream):
                    self._on_stream(MultiplexedStream(self, stream))
                case DataReceived(stream, data):
                    stream.owner.on_data(data)
                case StreamEnded(stream) | StreamReset(stream) | WindowOpened(stream):
                    stream.owner.on_change()
                case PingAcknowledged():
                    self._answered.set()
                case SessionFaulted(reason):
                    logger.error("transport.multiplex.failed reason=%s", reason)
                    self.lost = reason
                case _:
                    pass

    async def _write(self) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                changed = self._changed
                output = self._session.take_output()
                if output:
                    self._sending = True
                    await self._stream.send(output)
                    self._sending = False
                    self.notify()
                elif self.lost is not None:
                    break
                else:
                    await changed.wait()
        self._end("the connection was lost")

    async def _keep_alive(self) -> None:
        for value in range(1 << 32):
            await anyio.sleep(_PING_INTERVAL)
            now = anyio.current_time()
            while self._lingering and self._lingering[0][0] <= now:
                self._session.reset(self._lingering.popleft()[1])
            self._answered = anyio.Event()
            with suppress(YamuxError):
                self._session.ping(value)
            self.notify()
            with anyio.move_on_after(_PING_TIMEOUT) as scope:
                await self._answered.wait()
            if scope.cancelled_caught:
                self._end(f"the peer did not answer within {_PING_TIMEOUT:g} seconds")

    def _end(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        if not self._closed.is_set():
            self._closed.set()
            for stream in list(self._session.streams.values()):
                stream.is_reset = True
                if stream.owner is not None:
                    stream.owner.on_change()
            self._session.streams.clear()
            self.notify()


@final
class MultiplexedStream(ByteStream):
    """One of the streams of a connection."""

    def __init__(self, multiplexer: Multiplexer, stream: YamuxStream) -> None:
        self._multiplexer = multiplexer
        self._stream = stream
        self._chunks: deque[bytes | bytearray] = deque()
        self._changed = anyio.Event()
        self._closed = False
        self._receiving = anyio.ResourceGuard("receiving from")
        self._sending = anyio.ResourceGuard("sending to")
        stream.owner = self

    def __repr__(self) -> str:
        return f"<MultiplexedStream {self._stream.id}>"

    @property
    def is_reset(self) -> bool:
        """Whether it was given up, by either side."""
        return self._stream.is_reset

    def accept(self) -> None:
        """Tell the peer that its stream is accepted."""
        self._multiplexer.session.accept(self._stream)
        self._multiplexer.notify()

    def refuse(self) -> None:
        """Give the stream up, in both directions and at once."""
        self._closed = True
        self._multiplexer.session.reset(self._stream)
        self._multiplexer.notify()
        self.on_change()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the connection."""
        return self._multiplexer._stream.extra_attributes  # noqa: SLF001 - parts of one thing

    def on_data(self, data: bytes) -> None:
        """Content came."""
        if self._closed:
            # The peer may have been sending when we closed: it must not get stuck.
            self._consumed(len(data))
            return
        chunks = self._chunks
        if chunks and len(data) <= _SMALL_PIECE and len(chunks[-1]) <= _JOINED_SIZE:
            last = chunks[-1]
            if not isinstance(last, bytearray):
                last = chunks[-1] = bytearray(last)
            last += data
        else:
            chunks.append(data)
        self.on_change()

    def on_change(self) -> None:
        """The state of the stream is another one."""
        self._changed.set()
        self._changed = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Take what has arrived, or wait for it."""
        with self._receiving:
            await lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise anyio.ClosedResourceError
                if self._chunks:
                    break
                if self._stream.is_reset:
                    raise anyio.BrokenResourceError
                if self._stream.remote_closed:
                    raise anyio.EndOfStream
                await self._changed.wait()
            data = bytes(self._chunks.popleft())
            if len(data) > max_bytes:
                self._chunks.appendleft(data[max_bytes:])
                data = data[:max_bytes]
            self._consumed(len(data))
            return data

    def _consumed(self, size: int) -> None:
        session = self._multiplexer.session
        before = session.output_size
        session.consumed(self._stream, size)
        if session.output_size > before:
            self._multiplexer.notify()

    async def send(self, item: bytes) -> None:
        """Send all of it, as fast as the other end takes it."""
        with self._sending:
            await lowlevel.checkpoint()
            rest = memoryview(item)
            while True:
                if self._closed or self._stream.local_closed:
                    raise anyio.ClosedResourceError
                if self._stream.is_reset or self._multiplexer.lost is not None:
                    raise anyio.BrokenResourceError
                if not rest:
                    return
                if not self._multiplexer.has_room:
                    await self._multiplexer.changed.wait()
                    continue
                taken = self._multiplexer.session.send(self._stream, rest)
                if taken:
                    rest = rest[taken:]
                    self._multiplexer.notify()
                else:
                    await self._changed.wait()

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on."""
        if self._closed:
            raise anyio.ClosedResourceError
        with self._sending:
            self._multiplexer.session.end(self._stream)
            self._multiplexer.notify()

    async def aclose(self) -> None:
        """Close both directions. Never raises."""
        if self._closed:
            return
        self._closed = True
        session = self._multiplexer.session
        session.end(self._stream)
        self._consumed(sum(map(len, self._chunks)))
        self._chunks.clear()
        if not self._stream.closed:
            self._multiplexer.linger(self._stream)
        self._multiplexer.notify()
        self.on_change()


@final
class MultiplexedListener(StreamListener):
    """Gives out those of a connection's streams that are meant for it."""

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._waiting: deque[MultiplexedStream] = deque()
        self._changed = anyio.Event()
        self._closed = False
        self._accepting = anyio.ResourceGuard("accepting connections from")

    @property
    def address(self) -> str:
        """Where the connection itself was accepted."""
        return self._address

    async def accept(self) -> MultiplexedStream:
        """Wait for the next stream."""
        with self._accepting:
            await lowlevel.checkpoint()
            while not self._closed:
                while self._waiting:
                    stream = self._waiting.popleft()
                    if not stream.is_reset:
                        stream.accept()
                        return stream
                changed = self._changed
                await changed.wait()
            raise anyio.ClosedResourceError

    def offer(self, stream: MultiplexedStream) -> bool:
        """Let `stream` wait to be accepted here; False if nobody accepts any more."""
        if not self._closed:
            if len(self._waiting) >= _MANY_WAITING:
                self._waiting = deque(each for each in self._waiting if not each.is_reset)
            self._waiting.append(stream)
            self._changed.set()
            self._changed = anyio.Event()
        return not self._closed

    async def aclose(self) -> None:
        """Stop accepting; what waits to be accepted is closed. Never raises."""
        self._closed = True
        self._changed.set()
        self._changed = anyio.Event()
        while self._waiting:
            await self._waiting.popleft().aclose()
