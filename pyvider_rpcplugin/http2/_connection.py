"""The HTTP/2 connection state machine (RFC 9113), for either side.

Sans-I/O: bytes go in with `receive_data`, which returns events; whatever is to be sent, by the
caller's wish or as the protocol demands, gathers until `take_output` fetches it. No awaits, no
clock, no callbacks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar

from ._errors import ConnectionFault, ErrorCode, StreamFault, code_name
from ._events import (
    ConnectionFaulted,
    DataReceived,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from ._frames import (
    ACK,
    CLIENT_MAGIC,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER_SIZE,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    FrameReader,
    frame_header,
    goaway_frame,
    header_block_frames,
    ping_frame,
    rst_stream_frame,
    settings_frame,
    strip_padding,
    window_update_frame,
)
from ._headers import HeaderDecoder, HeaderEncoder
from ._limits import OVERSIZED_SECTION, TINY_FRAME, FloodGuard, Limits
from ._settings import DEFAULT_WINDOW, LocalSettings, RemoteSettings
from ._stream import H2Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._headers import HeaderBlock

_REMEMBERED_RESETS = 4096
# A copy of that much costs less than one more element of the output.
_JOINED_SIZE = 4096
# Where a frame says how long it is, and what it means for its stream.
_LENGTH_SIZE, _FLAGS_AT = 3, 4
# A system call of its own costs less than a copy of that much.
_LARGE_PIECE = 65_536
_LARGEST_STREAM_ID = 2**31 - 1


class H2Connection:
    """One connection as one side sees it.

    Args:
        client_side: Whether we opened it.
        settings: What we announce.
        limits: What the peer may make us hold and do.

    Attributes:
        streams: The open and half-closed streams by identifier.
        remote: What the peer announced.
        send_window: Octets that the peer lets us send on all streams together.
        guard: Counts frames that do nothing; refresh it about once a second while it counts.
        closed: A connection error happened or `close` was called: nothing is read any more.
        output_size: Octets that wait for `take_output`. They grow by what we send and, a few
            octets for each frame at most, by what the peer makes us answer.
        goaway_received: The peer takes no more streams.
        goaway_sent: We take no more streams.
    """

    def __init__(
        self,
        *,
        client_side: bool,
        settings: LocalSettings | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._client = client_side
        self._local = settings or LocalSettings()
        self._limits = limits or Limits()
        self.streams: dict[int, H2Stream] = {}
        self.remote: RemoteSettings = RemoteSettings()
        self.guard: FloodGuard = FloodGuard(self._limits)
        self.closed: bool = False
        self.goaway_received: bool = False
        self.goaway_sent: bool = False
        self.send_window: int = DEFAULT_WINDOW
        self._receive_window = DEFAULT_WINDOW
        self._unacknowledged = 0
        # Until the peer has acknowledged our SETTINGS it may still count with the default.
        self._stream_receive_window = max(self._local.initial_window_size, DEFAULT_WINDOW)
        self._output: list[bytes | bytearray | memoryview] = []
        # Whose content the last piece of the output is, if more of it can be added to that.
        self._growing: H2Stream | None = None
        self.output_size: int = 0
        self._frames = FrameReader(self._local.max_frame_size)
        self._decoder = HeaderDecoder(self._limits.header_list_size, self._limits.header_fields)
        self._preamble = HeaderEncoder.preamble
        self._magic_left = b"" if client_side else CLIENT_MAGIC
        self._settings_received = False
        self._settings_acknowledged = False
        self._next_stream_id = 1
        self._last_peer_stream_id = 0
        # Frames for streams that we reset may still be on their way: those are no errors.
        self._on_their_way: OrderedDict[int, _OnTheirWay] = OrderedDict()
        self._block: _PartialBlock | None = None
        self._events: list[Event] = []

    # --- sending ---------------------------------------------------------------------------

    def initiate(self) -> None:
        """Queue our connection preface (section 3.4). Call it once, before all else."""
        if self._client:
            self._queue(CLIENT_MAGIC)
        values = self._local.as_values(
            client_side=self._client, header_list_size=self._limits.header_list_size
        )
        self._queue(settings_frame(values))
        extra = self._local.connection_window_size - DEFAULT_WINDOW
        if extra > 0:
            self._receive_window += extra
            self._queue(window_update_frame(0, extra))

    def take_output(self) -> bytes:
        """All that is to be sent, in order; the caller must send it."""
        if self._growing is not None:
            self._grown()
        data = b"".join(self._output)
        self._output.clear()
        self.output_size = 0
        return data

    def take_parts(self) -> list[bytes | memoryview]:
        """The same in pieces, with large content as it is: nothing large is copied."""
        if self._growing is not None:
            self._grown()
        parts: list[bytes | memoryview] = []
        small: list[bytes | bytearray | memoryview] = []
        for piece in self._output:
            if len(piece) < _LARGE_PIECE or isinstance(piece, bytearray):
                small.append(piece)
                continue
            parts.append(b"".join(small))  # at least the piece's own frame header
            small.clear()
            parts.append(piece)
        if small:
            parts.append(b"".join(small))
        self._output.clear()
        self.output_size = 0
        return parts

    def can_open_stream(self) -> bool:
        """Whether the peer's concurrency limit leaves room for one more stream."""
        return len(self.streams) < self.remote.max_concurrent_streams

    @property
    def accepts_requests(self) -> bool:
        """Whether new streams may be opened at all: not after GOAWAY, nor without identifiers."""
        return not (
            self.closed or self.goaway_received or self._next_stream_id > _LARGEST_STREAM_ID
        )

    @property
    def requests_sent(self) -> int:
        """How many streams were opened (client side)."""
        return self._next_stream_id // 2

    def send_request(self, block: bytes, *, end_stream: bool = False) -> H2Stream:
        """Open a stream with an encoded header block (client side).

        Only while `accepts_requests` and `can_open_stream()` are true.
        """
        stream_id = self._next_stream_id
        self._next_stream_id += 2
        stream = H2Stream(stream_id, self.remote.initial_window_size, self._stream_receive_window)
        self.streams[stream_id] = stream
        self.send_headers(stream, block, end_stream=end_stream)
        return stream

    def send_headers(self, stream: H2Stream, block: bytes, *, end_stream: bool = False) -> None:
        """Send an encoded header or trailer section; does nothing if the stream is closed."""
        if stream.closed:
            return
        if self._preamble:
            block = self._preamble + block
            self._preamble = b""
        self._queue(
            header_block_frames(
                stream.stream_id, block, self.remote.max_frame_size, end_stream=end_stream
            )
        )
        if end_stream:
            self._close_local(stream)

    def sendable(self, stream: H2Stream) -> int:
        """How many octets of content the two windows allow now; may be below zero."""
        window = stream.send_window
        # Asked for each message, and min() takes three times as long.
        return window if window < self.send_window else self.send_window  # noqa: FURB136

    def send_data(
        self, stream: H2Stream, data: bytes | memoryview, *, end_stream: bool = False
    ) -> None:
        """Send content, in as many DATA frames as it takes; at most `sendable` octets of it.

        Does nothing if the stream is closed. The content must stay as it is until `take_output`.
        """
        if stream.closed:
            return
        size = len(data)
        stream.send_window -= size
        self.send_window -= size
        if size >= TINY_FRAME or (stream.send_window > 0 and self.send_window > 0):
            self.guard.useful(2)
        # Else the peer's windows allow only crumbs, and crumbs must not pay for its next update.
        flags = END_STREAM if end_stream else 0
        if size <= _JOINED_SIZE:  # and so smaller than any peer's limit
            if self._growing is not stream or not self._grow(data, flags):
                self._queue(frame_header(size, DATA, flags, stream.stream_id) + data)
                self._growing = None if self.closed else stream
        else:
            self._queue_content(stream.stream_id, memoryview(data), flags)
        if end_stream:
            self._close_local(stream)

    def _grow(self, data: bytes | memoryview, flags: int) -> bool:
        """Add content to the DATA frame that was queued last; say whether there was room.

        A frame costs the peer more than the small message in it.
        """
        frame = self._output[-1]
        if len(frame) + len(data) > _JOINED_SIZE:
            return False
        if not isinstance(frame, bytearray):
            frame = self._output[-1] = bytearray(frame)
        frame += data
        frame[_FLAGS_AT] |= flags
        self.output_size += len(data)
        return True

    def _grown(self) -> None:
        """Nothing more is added to the last frame: let it say how long it is."""
        frame = self._output[-1]
        if isinstance(frame, bytearray):
            frame[:_LENGTH_SIZE] = (len(frame) - FRAME_HEADER_SIZE).to_bytes(_LENGTH_SIZE, "big")
        self._growing = None

    def _queue_content(self, stream_id: int, content: memoryview, flags: int) -> None:
        limit = self.remote.max_frame_size
        while len(content) > limit:
            self._queue(frame_header(limit, DATA, 0, stream_id))
            self._queue(content[:limit])
            self.guard.useful(2)
            content = content[limit:]
        self._queue(frame_header(len(content), DATA, flags, stream_id))
        self._queue(content)

    def reset_stream(self, stream: H2Stream, code: ErrorCode) -> None:
        """End a stream at once; does nothing if it is closed.

        What was received on it must still be given back: see `release`.
        """
        if stream.closed:
            return
        self._queue(rst_stream_frame(stream.stream_id, code))
        if not stream.remote_closed:
            self._expect_leftovers(stream.stream_id, stream.receive_window)
        self._forget(stream)

    def acknowledge(self, stream: H2Stream, size: int) -> None:
        """Give `size` consumed octets of a stream back to the peer.

        The stream may be closed; after `release` it does nothing. Updates are batched: they are
        sent when half a window has been consumed.
        """
        size = min(size, stream.unconsumed)
        if not size:
            return
        stream.unconsumed -= size
        if not (stream.remote_closed or stream.closed):
            stream.unacknowledged += size
            if stream.unacknowledged * 2 >= self._stream_receive_window:
                self._queue(window_update_frame(stream.stream_id, stream.unacknowledged))
                stream.receive_window += stream.unacknowledged
                stream.unacknowledged = 0
        self._acknowledge_connection(size)

    def release(self, stream: H2Stream) -> None:
        """Give back what nobody will consume any more.

        Whoever loses interest in a stream must call it, also if the stream is closed, and so must
        whoever gets `DataReceived` for a stream in which nobody is interested. Otherwise those
        octets are missing from the connection's window for good. Content that was not reported
        (of closed streams, of frames in error, padding) is given back here.
        """
        if stream.unconsumed:
            size, stream.unconsumed = stream.unconsumed, 0
            self._acknowledge_connection(size)

    def ping(self, payload: bytes) -> None:
        """Queue a PING with eight octets; `PingAcknowledged` will answer it."""
        self._queue(ping_frame(payload))

    def go_away(self) -> None:
        """Queue GOAWAY: open streams go on, later ones are ignored (section 6.8)."""
        if not self.goaway_sent:
            self.goaway_sent = True
            self._queue(goaway_frame(self._last_peer_stream_id, ErrorCode.NO_ERROR))

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """Queue a last GOAWAY; from then on nothing is taken in and nothing more is queued."""
        if not self.closed:
            self.goaway_sent = True
            debug = reason.encode(errors="replace")[:256]
            self._queue(goaway_frame(self._last_peer_stream_id, code, debug))
            self.closed = True

    def _queue(self, data: bytes | memoryview) -> None:
        if self._growing is not None:
            self._grown()
        if not self.closed:
            self._output.append(data)
            self.output_size += len(data)

    def _acknowledge_connection(self, size: int) -> None:
        self._unacknowledged += size
        if self._unacknowledged * 2 >= self._local.connection_window_size:
            self._queue(window_update_frame(0, self._unacknowledged))
            self._receive_window += self._unacknowledged
            self._unacknowledged = 0

    def _close_local(self, stream: H2Stream) -> None:
        stream.local_closed = True
        if stream.remote_closed:
            self._forget(stream)
            self.guard.completed()

    def _close_remote(self, stream: H2Stream) -> None:
        stream.remote_closed = True
        if stream.local_closed:
            self._forget(stream)
            self.guard.completed()

    def _forget(self, stream: H2Stream) -> None:
        stream.closed = True
        self.streams.pop(stream.stream_id, None)

    def _expect_leftovers(self, stream_id: int, window: int) -> None:
        # The frame in hand may go on, although it is larger than the window.
        self._on_their_way[stream_id] = _OnTheirWay(max(window, 0) + self._frames.data_left)
        if len(self._on_their_way) > _REMEMBERED_RESETS:
            self._on_their_way.popitem(last=False)

    # --- receiving -------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """Take in what the peer sent, in any split, and return what it means.

        Send `take_output()` afterwards. After `ConnectionFaulted` nothing is read any more.
        """
        if self.closed:
            return []
        events: list[Event] = []
        self._events = events
        try:
            if self._magic_left:
                data = self._match_magic(data)
            for kind, flags, stream_id, payload in self._frames.feed(data):
                try:
                    if self._block is not None and kind != CONTINUATION:
                        raise ConnectionFault(
                            ErrorCode.PROTOCOL_ERROR, "a header block was interrupted"
                        )
                    if not self._settings_received and kind != SETTINGS:
                        raise ConnectionFault(
                            ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS"
                        )
                    if kind == DATA:
                        self._on_data(flags, stream_id, payload)
                    elif kind == HEADERS:
                        self._on_headers(flags, stream_id, payload)
                    else:
                        handler = self._handlers.get(kind)
                        if handler is None:  # section 4.1: unknown types are ignored
                            self.guard.count_idle("a frame of unknown type")
                        else:
                            handler(self, flags, stream_id, payload)
                except StreamFault as fault:
                    self._reset_faulted(fault)
        except ConnectionFault as fault:
            self.close(fault.code, fault.reason)
            events.append(ConnectionFaulted(fault))
        return events

    def _match_magic(self, data: bytes) -> bytes:
        expected = self._magic_left
        if data[: len(expected)] != expected[: len(data)]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface")
        self._magic_left = expected[len(data) :]
        return data[len(expected) :]

    def _reset_faulted(self, fault: StreamFault) -> None:
        calm = fault.code is ErrorCode.ENHANCE_YOUR_CALM
        self.guard.count_reset(OVERSIZED_SECTION if calm else 1)
        stream = self.streams.get(fault.stream_id)
        if stream is None:
            self._queue(rst_stream_frame(fault.stream_id, fault.code))
            self._expect_leftovers(fault.stream_id, self._stream_receive_window)
            return
        self.reset_stream(stream, fault.code)
        self._events.append(StreamReset(stream, fault.code, fault.reason, by_peer=False))

    def _is_idle(self, stream_id: int) -> bool:
        """Whether no request has opened this stream yet (section 5.1.1)."""
        if stream_id % 2 == 0:  # Only a server could open it, by a push, and none is allowed.
            return True
        if self._client:
            return stream_id >= self._next_stream_id
        return stream_id > self._last_peer_stream_id and not self.goaway_sent

    def _is_beyond_goaway(self, stream_id: int) -> bool:
        """Whether the client opened this stream not knowing of our GOAWAY: it is ignored."""
        return (
            self.goaway_sent
            and not self._client
            and stream_id % 2 == 1
            and stream_id > self._last_peer_stream_id
        )

    def _on_data(self, flags: int, stream_id: int, payload: bytes | memoryview) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is full")
        if flags & PADDED:
            payload = strip_padding(flags, bytes(payload))
        end_stream = flags & END_STREAM != 0
        stream = self.streams.get(stream_id)
        if stream is None:
            self._acknowledge_connection(size)
            self._on_stray_data(stream_id, size, end_stream=end_stream)
            return
        stream.receive_window -= size
        if stream.length_left is not None:
            stream.length_left -= len(payload)
        if (
            stream.remote_closed
            or not stream.headers_received
            or stream.receive_window < 0
            or stream.length_left is not None
        ):
            fault = _data_fault(stream, end_stream=end_stream)
            if fault is not None:
                self._acknowledge_connection(size)
                raise StreamFault(stream_id, *fault)
        stream.unconsumed += size
        if len(payload) < size:
            self.acknowledge(stream, size - len(payload))
        if payload or end_stream:
            self.guard.useful()
        else:
            self.guard.count_idle("an empty DATA frame")
        if end_stream:
            self._close_remote(stream)
        self._events.append(DataReceived(stream, payload, end_stream=end_stream))

    def _on_stray_data(self, stream_id: int, size: int, *, end_stream: bool) -> None:
        """DATA for a stream that is not open (section 5.1)."""
        if self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if not size and not end_stream:
            self.guard.count_idle("an empty DATA frame")
        if self._is_beyond_goaway(stream_id):
            return
        leftovers = self._on_their_way.get(stream_id)
        if leftovers is None:
            if end_stream:  # So nothing more of it is on its way.
                self.guard.count_reset()
                self._queue(rst_stream_frame(stream_id, ErrorCode.STREAM_CLOSED))
                return
            raise StreamFault(
                stream_id, ErrorCode.STREAM_CLOSED, f"DATA on closed stream {stream_id}"
            )
        leftovers.window -= size
        if leftovers.window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, f"the window of stream {stream_id} is full"
            )
        if end_stream:
            del self._on_their_way[stream_id]

    def _on_stray_headers(self, stream_id: int, *, end_stream: bool) -> None:
        """A header section for a stream that is not open and cannot be opened (section 5.1)."""
        if self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on idle stream {stream_id}")
        if self._is_beyond_goaway(stream_id):
            self.guard.count_reset()
            return
        leftovers = self._on_their_way.get(stream_id)
        if leftovers is None:
            what = f"HEADERS on closed stream {stream_id}"
            if self._client:
                raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, what)
            # Section 5.1.1: a client must not go back to a lower identifier.
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, what)
        leftovers.header_sections -= 1
        if leftovers.header_sections < 0:
            self.guard.count_idle("HEADERS on a closed stream")
        if end_stream:
            del self._on_their_way[stream_id]

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (PADDED | PRIORITY_FLAG):
            payload = strip_padding(flags, payload)
            if flags & PRIORITY_FLAG:
                if len(payload) < 5:
                    reason = "HEADERS too short for its priority fields"
                    padded = flags & PADDED
                    code = ErrorCode.PROTOCOL_ERROR if padded else ErrorCode.FRAME_SIZE_ERROR
                    raise ConnectionFault(code, reason)
                payload = payload[5:]
        end_stream = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._on_header_block(stream_id, payload, end_stream=end_stream)
        else:
            self._block = _PartialBlock(stream_id, payload, end_stream=end_stream)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.add(payload, self._limits)
        if flags & END_HEADERS:
            self._block = None
            self._on_header_block(stream_id, b"".join(block.parts), end_stream=block.end_stream)

    def _on_header_block(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        if len(block) > self._limits.header_block_size:
            reason = f"a header block of {len(block)} octets"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason)
        # Decoded in any case, even if the stream is of no interest: the table must keep step.
        headers = self._decoder.decode(block)
        stream = self.streams.get(stream_id)
        if stream is not None:
            if stream.remote_closed:
                raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
            if stream.headers_received:
                self._on_trailers(stream, headers, end_stream=end_stream)
            else:
                self._on_response(stream, headers, end_stream=end_stream)
        elif self._client or stream_id % 2 == 0 or not self._is_idle(stream_id):
            self._on_stray_headers(stream_id, end_stream=end_stream)
        else:
            self._on_request(stream_id, headers, end_stream=end_stream)

    def _on_request(self, stream_id: int, headers: HeaderBlock, *, end_stream: bool) -> None:
        self._last_peer_stream_id = stream_id
        if len(self.streams) >= self._local.max_concurrent_streams:
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, "too many streams")
        fault = headers.request_fault
        if end_stream and headers.content_length:
            fault = "content-length without content"
        if fault is not None:
            raise StreamFault(stream_id, headers.fault_code, fault)
        stream = H2Stream(stream_id, self.remote.initial_window_size, self._stream_receive_window)
        self.streams[stream_id] = stream
        self._take_header_section(stream, headers, end_stream=end_stream)
        self._events.append(RequestReceived(stream, headers, end_stream=end_stream))

    def _on_response(self, stream: H2Stream, headers: HeaderBlock, *, end_stream: bool) -> None:
        if headers.response_fault is not None:
            raise StreamFault(stream.stream_id, headers.fault_code, headers.response_fault)
        if headers.pseudo[":status"][0] == "1":  # an informational response (section 8.1)
            if end_stream:
                reason = "an informational response that ends the stream"
                raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, reason)
            self.guard.count_idle("an informational response")
            return
        self._take_header_section(stream, headers, end_stream=end_stream)
        self._events.append(ResponseReceived(stream, headers, end_stream=end_stream))

    def _take_header_section(
        self, stream: H2Stream, headers: HeaderBlock, *, end_stream: bool
    ) -> None:
        self.guard.useful()
        stream.headers_received = True
        stream.length_left = headers.content_length
        if end_stream:
            self._close_remote(stream)

    def _on_trailers(self, stream: H2Stream, headers: HeaderBlock, *, end_stream: bool) -> None:
        fault = headers.trailer_fault
        if not end_stream:
            fault = "a second header section that does not end the stream"
        elif stream.length_left:
            fault = "content-length and content differ"
        if fault is not None:
            raise StreamFault(stream.stream_id, headers.fault_code, fault)
        self.guard.useful()
        self._close_remote(stream)
        self._events.append(TrailersReceived(stream, headers, end_stream=True))

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self.guard.count_idle("PRIORITY")
        if len(payload) != 5:
            # It may be for an idle stream, and those cannot be reset: hence a connection error.
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} octets")

    def _on_rst_stream(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(
                ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} octets"
            )
        if stream_id == 0 or self._is_idle(stream_id):
            reason = f"RST_STREAM on idle stream {stream_id}"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._on_their_way.pop(stream_id, None) is None:
                self.guard.count_reset()
            return
        if not self._client:  # A server can reset no more streams than we open.
            self.guard.count_reset()
        code = int.from_bytes(payload, "big")
        self._forget(stream)
        self._events.append(
            StreamReset(
                stream,
                code,
                f"the peer reset the stream ({code_name(code)})",
                by_peer=True,
                refused=code == ErrorCode.REFUSED_STREAM,
            )
        )

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {stream_id}")
        if flags & ACK:
            self._on_settings_ack(payload)
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} octets")
        if len(payload) > 6 * self._limits.settings:
            reason = f"{len(payload) // 6} settings, {self._limits.settings} are allowed"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason)
        self.guard.count_idle("SETTINGS")
        self._settings_received = True
        before = self.remote.initial_window_size
        self.remote.update(payload, from_server=self._client)
        delta = self.remote.initial_window_size - before
        if delta:
            for stream in self.streams.values():
                stream.send_window += delta
                if stream.send_window > LARGEST_WINDOW:
                    reason = f"the window of stream {stream.stream_id} overflows"
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, reason)
        self._queue(SETTINGS_ACK)
        self._events.append(SettingsReceived())
        if delta > 0:
            self._events.append(WindowOpened(None))

    def _on_settings_ack(self, payload: bytes) -> None:
        if not self._settings_received:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS ack with content")
        if self._settings_acknowledged:
            self.guard.count_idle("a SETTINGS ack")
            return
        self._settings_acknowledged = True
        delta = self._local.initial_window_size - self._stream_receive_window
        if delta:
            self._stream_receive_window = self._local.initial_window_size
            for stream in self.streams.values():
                stream.receive_window += delta

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which was not allowed")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"PING on stream {stream_id}")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} octets")
        if flags & ACK:
            self._events.append(PingAcknowledged(payload))
        else:
            self._queue(ping_frame(payload, ack=True))
        self.guard.count_idle("PING")

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {stream_id}")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} octets")
        self.guard.count_idle("GOAWAY")
        last_stream_id = int.from_bytes(payload[:4], "big") & _LARGEST_STREAM_ID
        code = int.from_bytes(payload[4:8], "big")
        self.goaway_received = True
        self._events.append(GoAwayReceived(last_stream_id, code, payload[8:]))
        if not self._client:
            return
        for stream in [s for s in self.streams.values() if s.stream_id > last_stream_id]:
            self._forget(stream)
            reason = f"the peer is going away ({code_name(code)})"
            self._events.append(StreamReset(stream, code, reason, by_peer=True, refused=True))

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(
                ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} octets"
            )
        self.guard.count_idle("WINDOW_UPDATE")
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if stream_id == 0:
            self.send_window += _checked_increment(0, increment, self.send_window)
            self._events.append(WindowOpened(None))
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                reason = f"WINDOW_UPDATE on idle stream {stream_id}"
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
            return
        stream.send_window += _checked_increment(stream_id, increment, stream.send_window)
        self._events.append(WindowOpened(stream))

    _handlers: ClassVar[dict[int, Callable[[H2Connection, int, int, bytes], None]]] = {
        PRIORITY: _on_priority,
        RST_STREAM: _on_rst_stream,
        SETTINGS: _on_settings,
        PUSH_PROMISE: _on_push_promise,
        PING: _on_ping,
        GOAWAY: _on_goaway,
        WINDOW_UPDATE: _on_window_update,
        CONTINUATION: _on_continuation,
    }


def _checked_increment(stream_id: int, increment: int, window: int) -> int:
    if increment == 0:
        code, reason = ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0"
    elif window + increment > LARGEST_WINDOW:
        code, reason = ErrorCode.FLOW_CONTROL_ERROR, "a window overflows"
    else:
        return increment
    if stream_id == 0:
        raise ConnectionFault(code, reason)
    raise StreamFault(stream_id, code, reason)


def _data_fault(stream: H2Stream, *, end_stream: bool) -> tuple[ErrorCode, str] | None:
    if stream.remote_closed:
        return ErrorCode.STREAM_CLOSED, "DATA after END_STREAM"
    if not stream.headers_received:
        return ErrorCode.PROTOCOL_ERROR, "DATA before HEADERS"
    if stream.receive_window < 0:
        return ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is full"
    left = stream.length_left
    if left is not None and (left < 0 or (end_stream and left)):
        return ErrorCode.PROTOCOL_ERROR, "content-length and content differ"
    return None


class _OnTheirWay:
    """What a peer that does not know yet of our RST_STREAM may send on that stream."""

    __slots__ = ("header_sections", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.header_sections = 2


class _PartialBlock:
    """A header block that goes on in CONTINUATION frames."""

    __slots__ = ("end_stream", "frames", "parts", "size", "stream_id")

    def __init__(self, stream_id: int, first: bytes, *, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.end_stream = end_stream
        self.parts = [first]
        self.size = len(first)
        self.frames = 0

    def add(self, part: bytes, limits: Limits) -> None:
        self.parts.append(part)
        self.size += len(part)
        self.frames += 1
        if self.frames > limits.continuation_frames or self.size > limits.header_block_size:
            reason = f"a header block of {self.size} octets in {self.frames + 1} frames"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason)
