"""HTTP/2 (RFC 9113) without I/O: bytes in, events and bytes out.

`h2` would do, and is what the tests compare with; this core exists because it is several times
faster for what gRPC sends (see the benchmarks), and because the bounds on what a peer may do
belong into it.
"""

from __future__ import annotations

from ._connection import H2Connection
from ._errors import ConnectionFault, ErrorCode, code_name
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
from ._headers import Field, HeaderBlock, HeaderEncoder
from ._limits import Limits
from ._settings import LocalSettings, RemoteSettings
from ._stream import H2Stream

__all__ = [
    "ConnectionFault",
    "ConnectionFaulted",
    "DataReceived",
    "ErrorCode",
    "Event",
    "Field",
    "GoAwayReceived",
    "H2Connection",
    "H2Stream",
    "HeaderBlock",
    "HeaderEncoder",
    "Limits",
    "LocalSettings",
    "PingAcknowledged",
    "RemoteSettings",
    "RequestReceived",
    "ResponseReceived",
    "SettingsReceived",
    "StreamReset",
    "TrailersReceived",
    "WindowOpened",
    "code_name",
]
