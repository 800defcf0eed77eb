"""yamux without I/O: many streams over one connection, as hosts and plugins in Go share it.

Bytes in, events and bytes out. There is no clock in here either: keepalive, and how long a stream
may take to be accepted, are for whoever owns the connection.
"""

from __future__ import annotations

from ._events import (
    DataReceived,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    SessionFaulted,
    StreamAccepted,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
)
from ._frames import GoAwayCode
from ._session import BACKLOG, WINDOW, YamuxError, YamuxSession, YamuxStream

__all__ = [
    "BACKLOG",
    "WINDOW",
    "DataReceived",
    "Event",
    "GoAwayCode",
    "GoAwayReceived",
    "PingAcknowledged",
    "SessionFaulted",
    "StreamAccepted",
    "StreamEnded",
    "StreamOpened",
    "StreamReset",
    "WindowOpened",
    "YamuxError",
    "YamuxSession",
    "YamuxStream",
]
