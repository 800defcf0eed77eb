"""What `H2Connection.receive_data` reports, in the order of its arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._errors import ConnectionFault
    from ._headers import HeaderBlock
    from ._stream import H2Stream

# Plain slotted classes: these are made for every frame, and a dataclass's __init__ with frozen
# fields takes three times as long.


class Event:
    """Base of all events."""

    __slots__ = ()


class _StreamHeaders(Event):
    __slots__ = ("end_stream", "headers", "stream")

    def __init__(self, stream: H2Stream, headers: HeaderBlock, *, end_stream: bool) -> None:
        self.stream: H2Stream = stream
        self.headers: HeaderBlock = headers
        self.end_stream: bool = end_stream


class RequestReceived(_StreamHeaders):
    """The peer opened a stream; set `stream.owner` before the next event is looked at."""

    __slots__ = ()


class ResponseReceived(_StreamHeaders):
    """The final header section of a response."""

    __slots__ = ()


class TrailersReceived(_StreamHeaders):
    """A trailer section; the peer's direction is closed."""

    __slots__ = ()


class DataReceived(Event):
    """Content, of a whole DATA frame or of a part of one.

    Its octets must be given back with `acknowledge` when they are consumed.
    """

    __slots__ = ("data", "end_stream", "stream")

    def __init__(self, stream: H2Stream, data: bytes | memoryview, *, end_stream: bool) -> None:
        self.stream: H2Stream = stream
        self.data: bytes | memoryview[int] = data
        self.end_stream: bool = end_stream


class StreamReset(Event):
    """The stream ended early: by the peer's RST_STREAM, or by ours after a stream error.

    `by_peer` says which; `refused` that the peer surely did nothing with the request
    (REFUSED_STREAM, or beyond the last stream of its GOAWAY).
    """

    __slots__ = ("by_peer", "code", "reason", "refused", "stream")

    def __init__(
        self, stream: H2Stream, code: int, reason: str, *, by_peer: bool, refused: bool = False
    ) -> None:
        self.stream: H2Stream = stream
        self.code: int = code
        self.reason: str = reason
        self.by_peer: bool = by_peer
        self.refused: bool = refused


class WindowOpened(Event):
    """More may be sent on `stream`, or, with None, on all streams."""

    __slots__ = ("stream",)

    def __init__(self, stream: H2Stream | None) -> None:
        self.stream: H2Stream | None = stream


class SettingsReceived(Event):
    """The peer's SETTINGS are in force; the first one completes its preface."""

    __slots__ = ()


class PingAcknowledged(Event):
    """The peer answered our PING."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload: bytes = payload


class GoAwayReceived(Event):
    """The peer takes no more streams; those up to `last_stream_id` go on."""

    __slots__ = ("code", "debug", "last_stream_id")

    def __init__(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.last_stream_id: int = last_stream_id
        self.code: int = code
        self.debug: bytes = debug


class ConnectionFaulted(Event):
    """The peer broke the protocol or a bound. GOAWAY is queued: send it, then close."""

    __slots__ = ("fault",)

    def __init__(self, fault: ConnectionFault) -> None:
        self.fault: ConnectionFault = fault
