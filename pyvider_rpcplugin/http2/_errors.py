"""What can go wrong on an HTTP/2 connection, as RFC 9113 divides it.

A *connection error* (section 5.4.1) ends the connection with GOAWAY, a *stream error*
(section 5.4.2) ends one stream with RST_STREAM. Both are raised and caught inside this package:
whoever feeds bytes to a connection sees events, never these.
"""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """The error codes of RFC 9113, section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def code_name(code: int) -> str:
    """The name of an error code; unknown ones, which are legal, as a number."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error code {code:#x}"


class H2Error(Exception):
    """Base of the two kinds of error; `code` and `reason` say which and why."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code.name}: {self.reason}"


class ConnectionFault(H2Error):
    """A connection error: nothing more can be done on this connection."""


class StreamFault(H2Error):
    """A stream error: the stream is reset, the connection goes on."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(code, reason)
        self.args = (stream_id, code, reason)
        self.stream_id = stream_id
