"""What a channel or a server may be told about its connections."""

from __future__ import annotations

from typing import Literal

import msgspec

Compression = Literal["gzip", "deflate"]


class RPCOptions(msgspec.Struct, frozen=True):
    """Options of a `Channel` or a `Server`.

    Attributes:
        max_receive_message_size: Octets of the largest message that is taken (after
            decompression); a larger one is RESOURCE_EXHAUSTED before it is buffered. -1: no limit.
        max_send_message_size: The same for what we send.
        max_concurrent_streams: Calls that a client may have in flight on one connection.
        max_concurrent_calls: Calls that a server takes on all connections together, until their
            handlers have ended; others are refused with UNAVAILABLE at once.
        max_connections: Connections that a server has at a time. One more takes the place of the
            oldest one whose client has not spoken yet; if there is none, it is turned away.
        keepalive_time: Seconds of silence after which a connection is probed with PING; 0: never.
            grpc-go servers close connections that are probed more often than every five minutes.
        keepalive_timeout: Seconds within which the probe must be answered.
        settings_timeout: Seconds within which a new connection's peer must send its SETTINGS.
        max_workers: Threads that the plain functions among a server's handlers share.
        default_timeout: Seconds that a call of a channel may take which has neither a timeout nor a
            deadline; None: as long as it does.
        compression: What messages are compressed with; None: they are not. A server compresses
            only for clients that accept it.
    """

    max_receive_message_size: int = 268_435_456
    max_send_message_size: int = -1
    max_concurrent_streams: int = 1000
    max_concurrent_calls: int = 4000
    max_connections: int = 256
    keepalive_time: float = 0.0
    keepalive_timeout: float = 20.0
    settings_timeout: float = 30.0
    max_workers: int = 40
    default_timeout: float | None = None
    compression: Compression | None = None
