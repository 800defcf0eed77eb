"""What channels and servers have done so far: what their `statistics()` return."""

from __future__ import annotations

import msgspec

__all__ = ["CallStatistics", "ChannelStatistics", "ConnectionStatistics", "ServerStatistics"]


class CallStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls there were, and how they ended.

    They are the application's: those that a host and its plugin live by (output, the broker, the
    question whether it serves) are not counted. A call that is made again counts once.

    Attributes:
        calls_started: Calls that have begun, and those that failed before they could.
        calls_succeeded: Those that have ended with OK.
        calls_failed: Those that have ended otherwise, by the names of their statuses.
        calls_open: Those that have not ended.
    """

    calls_started: int = 0
    calls_succeeded: int = 0
    calls_failed: dict[str, int] = {}
    calls_open: int = 0


class ConnectionStatistics(CallStatistics, frozen=True, kw_only=True):
    """The same, and what went over connections.

    Attributes:
        connections: Connections that are open.
        bytes_sent: Octets of HTTP/2, without what encryption adds, on all connections so far.
        bytes_received: Likewise.
    """

    connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class ChannelStatistics(ConnectionStatistics, frozen=True, kw_only=True):
    """What a channel has done.

    Attributes:
        calls_waiting: Calls that wait for a connection, or for their turn on it.
        rtt: Seconds that the answer to the last PING took; None if there was none: they are sent
            with keepalive alone.
    """

    calls_waiting: int = 0
    rtt: float | None = None


class ServerStatistics(ConnectionStatistics, frozen=True, kw_only=True):
    """What a server has done.

    Attributes:
        connections_accepted: Connections so far.
    """

    connections_accepted: int = 0
