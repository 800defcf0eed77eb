"""The state machine of one connection and its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._events import (
    DataReceived,
    GoAwayReceived,
    PingAcknowledged,
    SessionFaulted,
    StreamAccepted,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
)
from ._frames import HEADER, HEADER_SIZE, VERSION, Flag, FrameType, GoAwayCode, header

if TYPE_CHECKING:
    from ._events import Event

#: What either side may send on a stream before the other one has consumed any of it.
WINDOW = 262_144
#: Streams that may wait to be accepted, in either direction.
BACKLOG = 256

_LARGEST = 0xFFFF_FFFF
# What a peer makes us answer (pings, streams beyond the backlog) waits until it is sent. A peer
# that asks on and on and reads nothing is not worth more memory than this.
_MOST_REPLIES = 4096
_MOST_PINGS = 64
# Frames without content between two calls of `refresh`. Honest peers send a few: of credit there is
# one for half a window.
_MOST_IDLE = 10_000


class YamuxError(Exception):
    """Something was asked of a session or a stream that it cannot do in its state."""


class _Fault(Exception):
    """The peer broke the rules; raised and caught in `YamuxSession.receive`."""


class YamuxStream:
    """One stream; what can be done with it, its session does.

    Attributes:
        id: Its number: odd if the client opened it.
        owner: Whatever the user of the session wants to find here.
        accepted: Whether the side that did not open it has accepted it.
        send_window: Octets that may be sent now.
        receive_window: Octets that the peer may send now.
        local_closed: We have said that we send no more.
        remote_closed: The peer has.
        is_reset: It was given up, by either side.
    """

    __slots__ = (
        "accepted",
        "id",
        "is_reset",
        "local_closed",
        "owner",
        "receive_window",
        "remote_closed",
        "send_window",
        "unreported",
    )

    def __init__(self, number: int) -> None:
        self.id: int = number
        self.owner: Any = None
        self.accepted: bool = False
        self.send_window: int = WINDOW
        self.receive_window: int = WINDOW
        self.unreported: int = 0  # consumed, and not yet told the peer
        self.local_closed: bool = False
        self.remote_closed: bool = False
        self.is_reset: bool = False

    def __repr__(self) -> str:
        state = "reset" if self.is_reset else "closed" if self.closed else "open"
        return f"<YamuxStream {self.id} {state}>"

    @property
    def closed(self) -> bool:
        """Whether nothing more will happen on it."""
        return self.is_reset or (self.local_closed and self.remote_closed)

    @property
    def sendable(self) -> int:
        """Octets that may be sent now."""
        return 0 if self.local_closed or self.is_reset else self.send_window


class YamuxSession:
    """One connection's streams.

    Methods append to the output, which `take_output` gives; none of them waits.

    Args:
        client: Whether this side has made the connection; with go-plugin, the host has.

    Attributes:
        streams: Those that are open, by their numbers.
        fault: Why the session is over; None if it is not.
        peer_left: The peer accepts no more streams.
        idle: How many frames without content have come since the last call of `refresh`.
    """

    def __init__(self, *, client: bool) -> None:
        self.streams: dict[int, YamuxStream] = {}
        self.fault: str | None = None
        self.peer_left: bool = False
        self.idle: int = 0
        self._next_id = 1 if client else 2
        self._leaving = False
        self._unanswered: set[int] = set()  # streams of ours that were not accepted yet
        self._waiting: set[int] = set()  # streams of the peer's that we have not accepted yet
        self._pings: set[int] = set()
        self._output = bytearray()
        self._replies = 0
        self._head = bytearray()
        self._payload_left = 0
        self._payload_stream: YamuxStream | None = None
        self._payload_ends = False

    def __repr__(self) -> str:
        return f"<YamuxSession {self.fault or f'{len(self.streams)} streams'}>"

    # --- what goes out -----------------------------------------------------------------------

    @property
    def output_size(self) -> int:
        """Octets that wait to be sent."""
        return len(self._output)

    def take_output(self) -> bytes:
        """Give what is to be sent, all of it."""
        output = bytes(self._output)
        self._output.clear()
        self._replies = 0
        return output

    def _say(self, kind: FrameType, flags: int, stream_id: int, length: int) -> None:
        self._output += header(kind, flags, stream_id, length)

    def _reply(self, kind: FrameType, flags: int, stream_id: int, length: int) -> None:
        self._replies += 1
        if self._replies > _MOST_REPLIES:
            msg = f"it asks for more than {_MOST_REPLIES} answers and does not read them"
            raise _Fault(msg)
        self._say(kind, flags, stream_id, length)

    # --- what the owner does -----------------------------------------------------------------

    @property
    def can_open(self) -> bool:
        """Whether `open` would give a stream."""
        return (
            self.fault is None
            and not self.peer_left
            and len(self._unanswered) < BACKLOG
            and self._next_id <= _LARGEST
        )

    def open(self) -> YamuxStream:
        """Open a stream; content may be sent before the peer has accepted it.

        Raises:
            YamuxError: The session is over, the peer is leaving, or too many streams of ours
                wait to be accepted.
        """
        if not self.can_open:
            reason = self.fault or (
                "the peer accepts no more streams"
                if self.peer_left
                else "too many streams wait to be accepted"
            )
            raise YamuxError(reason)
        stream = YamuxStream(self._next_id)
        self._next_id += 2
        self.streams[stream.id] = stream
        self._unanswered.add(stream.id)
        self._say(FrameType.WINDOW_UPDATE, Flag.SYN, stream.id, 0)
        return stream

    def accept(self, stream: YamuxStream) -> None:
        """Accept a stream that the peer has opened; nothing if it was given up meanwhile.

        Whoever sends on it, or ends it, has accepted it, too.
        """
        # Its number may be another stream's by now.
        if stream.id in self._waiting and not stream.closed and self.fault is None:
            self._waiting.discard(stream.id)
            stream.accepted = True
            self._say(FrameType.WINDOW_UPDATE, Flag.ACK, stream.id, 0)

    def send(self, stream: YamuxStream, data: bytes | memoryview) -> int:
        """Send as much of `data` as the peer's window lets us, and return how much that is.

        Raises:
            YamuxError: The stream was ended or given up, or the session is over.
        """
        self._check(stream)
        if stream.local_closed:
            msg = f"stream {stream.id} was ended already"
            raise YamuxError(msg)
        size = min(len(data), stream.send_window)
        if size:
            self.accept(stream)
            stream.send_window -= size
            self._say(FrameType.DATA, 0, stream.id, size)
            self._output += memoryview(data)[:size]
        return size

    def consumed(self, stream: YamuxStream, size: int) -> None:
        """Say that so much of what came was used; the peer may send as much again."""
        if stream.closed or stream.remote_closed or self.fault is not None:
            return
        stream.unreported += size
        # Small credits are not worth a frame each.
        if stream.unreported >= WINDOW // 2:
            stream.receive_window += stream.unreported
            self._say(FrameType.WINDOW_UPDATE, 0, stream.id, stream.unreported)
            stream.unreported = 0

    def end(self, stream: YamuxStream) -> None:
        """Say that nothing more will be sent on a stream; receiving goes on."""
        if stream.local_closed or stream.is_reset or self.fault is not None:
            return
        self.accept(stream)
        stream.local_closed = True
        self._say(FrameType.WINDOW_UPDATE, Flag.FIN, stream.id, 0)
        self._forget_if_closed(stream)

    def reset(self, stream: YamuxStream) -> None:
        """Give a stream up, or refuse one that the peer has opened."""
        if stream.closed or self.fault is not None:
            return
        stream.is_reset = True
        self._say(FrameType.WINDOW_UPDATE, Flag.RST, stream.id, 0)
        self._forget_if_closed(stream)

    def ping(self, value: int) -> None:
        """Ask the peer to answer with the same value.

        Raises:
            YamuxError: The session is over, or too many pings are unanswered.
        """
        if self.fault is not None or len(self._pings) >= _MOST_PINGS:
            raise YamuxError(self.fault or "too many pings are unanswered")
        self._pings.add(value)
        self._say(FrameType.PING, Flag.SYN, 0, value)

    def go_away(self, code: GoAwayCode = GoAwayCode.NORMAL) -> None:
        """Accept no more streams; those that are there go on."""
        if not self._leaving and self.fault is None:
            self._leaving = True
            self._say(FrameType.GO_AWAY, 0, 0, code)

    def _check(self, stream: YamuxStream) -> None:
        if self.fault is not None:
            raise YamuxError(self.fault)
        if stream.is_reset:
            msg = f"stream {stream.id} was given up"
            raise YamuxError(msg)

    def _forget_if_closed(self, stream: YamuxStream) -> None:
        if stream.closed:
            self.streams.pop(stream.id, None)
            self._unanswered.discard(stream.id)
            self._waiting.discard(stream.id)

    def refresh(self) -> None:
        """Begin to count frames without content anew; call it about once a second."""
        self.idle = 0

    # --- what comes in -----------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Take in what came over the connection, and say what it means."""
        events: list[Event] = []
        view = memoryview(data)
        try:
            while view and self.fault is None:
                if self._payload_left:
                    view = self._take_payload(view, events)
                else:
                    view = self._take_header(view, events)
        except _Fault as exc:
            self._end_by(f"the peer broke the protocol: {exc}", events)
            self._say(FrameType.GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)
        return events

    def _end_by(self, reason: str, events: list[Event]) -> None:
        self.fault = reason
        events.append(SessionFaulted(reason))
        for stream in self.streams.values():
            stream.is_reset = True
        self._unanswered.clear()
        self._waiting.clear()

    def _take_header(self, view: memoryview, events: list[Event]) -> memoryview:
        missing = HEADER_SIZE - len(self._head)
        self._head += view[:missing]
        if len(self._head) == HEADER_SIZE:
            version, kind, flags, stream_id, length = HEADER.unpack(self._head)
            self._head.clear()
            if version != VERSION:
                msg = f"version {version} of it is unknown"
                raise _Fault(msg)
            self._on_frame(kind, flags, stream_id, length, events)
        return view[missing:]

    def _take_payload(self, view: memoryview, events: list[Event]) -> memoryview:
        part = view[: self._payload_left]
        self._payload_left -= len(part)
        stream = self._payload_stream
        if stream is not None and not stream.is_reset:
            events.append(DataReceived(stream, bytes(part)))
            if self._payload_ends and not self._payload_left:
                self._on_end(stream, events)
        return view[len(part) :]

    def _on_frame(
        self, kind: int, flags: int, stream_id: int, length: int, events: list[Event]
    ) -> None:
        if kind != FrameType.DATA or not length:
            self.idle += 1
            if self.idle > _MOST_IDLE:
                msg = f"it has sent {_MOST_IDLE} frames that carry nothing"
                raise _Fault(msg)
        match kind:
            case FrameType.DATA | FrameType.WINDOW_UPDATE:
                stream = self._stream_of(flags, stream_id, events)
                if kind == FrameType.DATA:
                    self._on_data(stream, flags, length, events)
                elif stream is not None:
                    self._on_window(stream, flags, length, events)
            case FrameType.PING:
                self._on_ping(flags, length, events)
            case FrameType.GO_AWAY:
                self._on_go_away(length, events)
            case _:
                msg = f"frames of type {kind} are unknown"
                raise _Fault(msg)

    def _stream_of(self, flags: int, stream_id: int, events: list[Event]) -> YamuxStream | None:
        """Find the frame's stream, with what its flags say at the beginning; None: not ours."""
        if flags & Flag.SYN:
            self._on_open(stream_id, events)
        stream = self.streams.get(stream_id)
        if stream is None:
            return None  # We gave it up, and the peer did not know yet.
        # hashicorp's says nothing of the acceptance of a stream that we have ended before it, but
        # sends nothing on one that it has not accepted.
        if stream_id in self._unanswered and (flags & Flag.ACK or not flags & Flag.RST):
            self._unanswered.discard(stream_id)
            stream.accepted = True
            events.append(StreamAccepted(stream))
        if flags & Flag.RST:
            stream.is_reset = True
            self._forget_if_closed(stream)
            events.append(StreamReset(stream))
            return None
        return stream

    def _on_open(self, stream_id: int, events: list[Event]) -> None:
        if stream_id == 0 or stream_id % 2 == self._next_id % 2:
            msg = f"stream {stream_id} is not the peer's to open"
            raise _Fault(msg)
        if stream_id in self.streams:
            msg = f"stream {stream_id} is opened twice"
            raise _Fault(msg)
        if self._leaving or len(self._waiting) >= BACKLOG:
            self._reply(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, 0)
            return
        stream = self.streams[stream_id] = YamuxStream(stream_id)
        self._waiting.add(stream_id)
        events.append(StreamOpened(stream))

    def _on_data(
        self, stream: YamuxStream | None, flags: int, length: int, events: list[Event]
    ) -> None:
        self._payload_left = length
        self._payload_stream = stream
        self._payload_ends = bool(flags & Flag.FIN)
        if stream is None:
            return
        if stream.remote_closed:
            msg = f"stream {stream.id} goes on after its end"
            raise _Fault(msg)
        if length > stream.receive_window:
            msg = f"{length} octets on stream {stream.id}, where {stream.receive_window} are left"
            raise _Fault(msg)
        stream.receive_window -= length
        if self._payload_ends and not length:
            self._on_end(stream, events)

    def _on_window(
        self, stream: YamuxStream, flags: int, increment: int, events: list[Event]
    ) -> None:
        if increment:
            stream.send_window += increment
            if stream.send_window > _LARGEST:
                msg = f"the window of stream {stream.id} exceeds 32 bits"
                raise _Fault(msg)
            events.append(WindowOpened(stream))
        if flags & Flag.FIN:
            if stream.remote_closed:
                msg = f"stream {stream.id} ends twice"
                raise _Fault(msg)
            self._on_end(stream, events)

    def _on_end(self, stream: YamuxStream, events: list[Event]) -> None:
        stream.remote_closed = True
        self._forget_if_closed(stream)
        events.append(StreamEnded(stream))

    def _on_ping(self, flags: int, value: int, events: list[Event]) -> None:
        if flags & Flag.SYN:
            self._reply(FrameType.PING, Flag.ACK, 0, value)
        elif value in self._pings:
            self._pings.discard(value)
            events.append(PingAcknowledged(value))

    def _on_go_away(self, code: int, events: list[Event]) -> None:
        if code == GoAwayCode.NORMAL:
            self.peer_left = True
            events.append(GoAwayReceived())
            return
        if code == GoAwayCode.PROTOCOL_ERROR:
            reason = "the peer says that we broke the protocol"
        else:
            reason = f"the peer says that it has failed (code {code})"
        self._end_by(reason, events)
