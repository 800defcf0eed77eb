"""The state of one HTTP/2 stream (RFC 9113, section 5.1).

Sans-I/O: no awaits here. Idle streams have no object, and neither have closed ones: the
connection forgets a stream as soon as both directions are closed.
"""

from __future__ import annotations

from typing import final


@final
class H2Stream:
    """One open or half-closed stream.

    Attributes:
        stream_id: Its identifier.
        send_window: Octets that the peer lets us send on it; below zero after the peer reduced
            its initial window.
        receive_window: Octets that we let the peer send on it.
        unacknowledged: Octets that were consumed and not yet given back with WINDOW_UPDATE.
        unconsumed: Octets that came in and were neither consumed nor given up.
        local_closed: We sent END_STREAM.
        remote_closed: The peer sent END_STREAM.
        closed: No frame may be sent any more; the connection has forgotten the stream.
        headers_received: The peer's header section (not an informational one) is in.
        length_left: Octets still due by the peer's content-length; None without one.
        owner: Room for the layer above: whom this stream's events concern.
    """

    __slots__ = (
        "closed",
        "headers_received",
        "length_left",
        "local_closed",
        "owner",
        "receive_window",
        "remote_closed",
        "send_window",
        "stream_id",
        "unacknowledged",
        "unconsumed",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.stream_id: int = stream_id
        self.send_window: int = send_window
        self.receive_window: int = receive_window
        self.unacknowledged: int = 0
        self.unconsumed: int = 0
        self.local_closed: bool = False
        self.remote_closed: bool = False
        self.closed: bool = False
        self.headers_received: bool = False
        self.length_left: int | None = None
        self.owner: object = None

    def __repr__(self) -> str:
        if self.closed:
            state = "closed"
        elif self.local_closed or self.remote_closed:
            state = f"half-closed ({'local' if self.local_closed else 'remote'})"
        else:
            state = "open"
        return f"<H2Stream {self.stream_id} {state}>"
