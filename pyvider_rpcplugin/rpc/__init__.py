"""gRPC over any anyio byte stream, by grpclib's contracts, on asyncio and on trio.

It knows nothing of plugins: a `Channel` is given a function that connects, a `Server` a listener.
Generated grpclib stubs take the one, generated bases are added to the other.
"""

from __future__ import annotations

from ._channel import Channel, open_channel
from ._client_stream import ClientStream
from ._metadata import Deadline
from ._options import RPCOptions
from ._server import Servable, Server
from ._server_stream import ServerStream
from .errors import ConnectionLost, DeadlineExceeded

__all__ = [
    "Channel",
    "ClientStream",
    "ConnectionLost",
    "Deadline",
    "DeadlineExceeded",
    "RPCOptions",
    "Servable",
    "Server",
    "ServerStream",
    "open_channel",
]
