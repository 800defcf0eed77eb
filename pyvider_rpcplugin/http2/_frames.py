"""The frame layer (RFC 9113, sections 4 and 6): bytes to frames and frames to bytes.

Sans-I/O: no awaits here, and no connection state but the rest of an unfinished frame.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ._errors import ConnectionFault, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLIENT_MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_SIZE = 9
DEFAULT_MAX_FRAME_SIZE = 16_384
LARGEST_MAX_FRAME_SIZE = 2**24 - 1
LARGEST_WINDOW = 2**31 - 1

_STREAM_ID_MASK = 0x7FFF_FFFF

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20


# The frame types of section 6. Plain integers: comparing with an IntEnum's member costs an attribute
# look-up and a slower comparison for every frame.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

Frame = tuple[int, int, int, Any]
"""Type, flags, stream identifier, payload: bytes, or a view where that of a DATA frame is large."""

# From here on a view of what was received costs less than a copy. But it keeps all of that in
# memory, so it must be a good part of it.
_VIEWED_SIZE = 16_384
_VIEWED_PART = 4


# The length has three octets, which `struct` does not know: two and one.
_HEADER = struct.Struct(">HBBBL")


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine octets before a payload of `length` octets (section 4.1)."""
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def settings_frame(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame that carries `values` (section 6.5)."""
    payload = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items()
    )
    return frame_header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK = frame_header(0, SETTINGS, ACK, 0)


def ping_frame(payload: bytes, *, ack: bool = False) -> bytes:
    """A PING frame with its eight octets (section 6.7)."""
    return frame_header(8, PING, ACK if ack else 0, 0) + payload


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame (section 6.4)."""
    return frame_header(4, RST_STREAM, 0, stream_id) + code.to_bytes(4, "big")


def goaway_frame(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """A GOAWAY frame (section 6.8)."""
    payload = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + debug
    return frame_header(len(payload), GOAWAY, 0, 0) + payload


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame (section 6.9); stream 0 is the connection."""
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + increment.to_bytes(4, "big")


def header_block_frames(
    stream_id: int, block: bytes, max_frame_size: int, *, end_stream: bool
) -> bytes:
    """HEADERS with `block`, followed by CONTINUATION frames where it is too long for one."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_size:
        return frame_header(len(block), HEADERS, flags | END_HEADERS, stream_id) + block
    frames = [frame_header(max_frame_size, HEADERS, flags, stream_id), block[:max_frame_size]]
    for start in range(max_frame_size, len(block), max_frame_size):
        part = block[start : start + max_frame_size]
        last = start + max_frame_size >= len(block)
        frames.append(frame_header(len(part), CONTINUATION, END_HEADERS if last else 0, stream_id))
        frames.append(part)
    return b"".join(frames)


class FrameReader:
    """Cuts a stream of bytes into frames, however the bytes were split on their way.

    A DATA frame that is not complete is given out in parts, as if each were a frame of its own:
    to whoever counts octets and waits for END_STREAM that is the same, and a large message is
    not copied together twice.

    Args:
        max_frame_size: The largest payload that we announced to accept.

    Attributes:
        data_left: Octets of the DATA frame in hand that have not come yet.
    """

    __slots__ = (
        "_data_flags",
        "_data_stream_id",
        "_have",
        "_need",
        "_parts",
        "data_left",
        "max_frame_size",
    )

    def __init__(self, max_frame_size: int) -> None:
        self.max_frame_size = max_frame_size
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self.data_left = 0
        self._data_flags = 0
        self._data_stream_id = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes; what is left over waits for the next call.

        The iterator must be run to its end before the next call.

        Raises:
            ConnectionFault: A frame is larger than announced (section 4.2). That is found from
                its header, so that no more than one frame is ever held.
        """
        position, end = 0, len(data)
        if self.data_left:
            position = min(self.data_left, end)
            self.data_left -= position
            flags = 0 if self.data_left else self._data_flags
            if position:
                yield DATA, flags, self._data_stream_id, _content(data, 0, position)
        elif self._parts:
            # Parts are joined once, when the frame is whole: one that comes in many reads is not
            # copied over and over.
            self._parts.append(data)
            self._have += end
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
            end = len(data)
        limit = self.max_frame_size
        while end - position >= FRAME_HEADER_SIZE:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, position)
            length = high << 8 | low
            if length > limit:
                reason = f"a frame of {length} octets, {limit} are allowed"
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, reason)
            start = position + FRAME_HEADER_SIZE
            stop = start + length
            stream_id &= _STREAM_ID_MASK
            if stop <= end:
                position = stop
                if kind != DATA or length < _VIEWED_SIZE:
                    yield kind, flags, stream_id, data[start:stop]
                else:
                    yield DATA, flags, stream_id, _content(data, start, stop)
            elif kind == DATA and not flags & PADDED:
                self.data_left, self._data_flags = stop - end, flags
                self._data_stream_id = stream_id
                if start < end:
                    yield DATA, flags & ~END_STREAM, stream_id, _content(data, start, end)
                return
            else:
                self._keep(data, position, FRAME_HEADER_SIZE + length)
                return
        if position < end:
            self._keep(data, position, FRAME_HEADER_SIZE)

    def _keep(self, data: bytes, position: int, need: int) -> None:
        rest = data[position:] if position else data
        self._parts.append(rest)
        self._have = len(rest)
        self._need = need


def _content(data: bytes, start: int, stop: int) -> bytes | memoryview:
    """The content of a DATA frame."""
    size = stop - start
    if size < _VIEWED_SIZE or size * _VIEWED_PART < len(data):
        return data[start:stop]
    return memoryview(data)[start:stop]


def strip_padding(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding (section 6.1).

    Raises:
        ConnectionFault: The padding is as long as the payload or longer.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a length octet")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - padding]
