"""SETTINGS (RFC 9113, section 6.5): what each side says about itself.

Sans-I/O: no awaits here.
"""

from __future__ import annotations

import msgspec

from ._errors import ConnectionFault, ErrorCode
from ._frames import DEFAULT_MAX_FRAME_SIZE, LARGEST_MAX_FRAME_SIZE, LARGEST_WINDOW

DEFAULT_WINDOW = 65_535
UNLIMITED = 2**32 - 1


# The settings of RFC 9113, section 6.5.2.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6


class LocalSettings(msgspec.Struct, frozen=True):
    """What we announce.

    Attributes:
        initial_window_size: Octets that the peer may send on a stream before we consume them.
        connection_window_size: The same for all streams together (sent as WINDOW_UPDATE, since
            SETTINGS cannot say it). Much larger than a stream's, so that a few calls whose
            messages nobody takes do not stop the others.
        max_frame_size: The largest frame payload that we take. Larger than the default, because
            each frame of a large message costs the same work.
        max_concurrent_streams: Streams that the peer may have open.
    """

    initial_window_size: int = 4 << 20
    connection_window_size: int = 32 << 20
    max_frame_size: int = 1 << 18
    max_concurrent_streams: int = 1000

    def as_values(self, *, client_side: bool, header_list_size: int) -> dict[int, int]:
        """The content of our first SETTINGS frame."""
        values = {
            INITIAL_WINDOW_SIZE: self.initial_window_size,
            MAX_FRAME_SIZE: self.max_frame_size,
            MAX_HEADER_LIST_SIZE: header_list_size,
        }
        if client_side:
            values[ENABLE_PUSH] = 0
        else:
            values[MAX_CONCURRENT_STREAMS] = self.max_concurrent_streams
        return values


class RemoteSettings(msgspec.Struct):
    """What the peer announced, with the protocol's defaults until it did."""

    max_concurrent_streams: int = UNLIMITED
    initial_window_size: int = DEFAULT_WINDOW
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE
    max_header_list_size: int = UNLIMITED

    def update(self, payload: bytes, *, from_server: bool) -> None:
        """Take over a SETTINGS payload; unknown settings are ignored.

        Raises:
            ConnectionFault: A value that may not be.
        """
        for start in range(0, len(payload), 6):
            code = int.from_bytes(payload[start : start + 2], "big")
            value = int.from_bytes(payload[start + 2 : start + 6], "big")
            if code == MAX_CONCURRENT_STREAMS:
                self.max_concurrent_streams = value
            elif code == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    reason = f"an initial window of {value} octets"
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, reason)
                self.initial_window_size = value
            elif code == MAX_FRAME_SIZE:
                if not DEFAULT_MAX_FRAME_SIZE <= value <= LARGEST_MAX_FRAME_SIZE:
                    reason = f"a maximum frame size of {value} octets"
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
                self.max_frame_size = value
            elif code == MAX_HEADER_LIST_SIZE:
                self.max_header_list_size = value
            elif code == ENABLE_PUSH and (value > 1 or (value and from_server)):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
