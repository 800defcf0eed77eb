"""gRPC over any anyio byte stream, by grpclib's contracts, on asyncio and on trio.

It knows nothing of plugins: a `Channel` is given a function that connects, a `Server` a listener.
Generated grpclib stubs take the one, generated bases are added to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._channel import Channel, open_channel
    from ._client_stream import ClientStream
    from ._codecs import RawCodec
    from ._interceptors import InterceptedCall, Interceptor, Observer
    from ._metadata import Deadline
    from ._options import RPCOptions
    from ._server import Servable, Server
    from ._server_stream import ServerStream
    from ._status import CallStatus
    from .errors import CallRefused, ConnectionLost, DeadlineExceeded

__all__ = [
    "CallRefused",
    "CallStatus",
    "Channel",
    "ClientStream",
    "ConnectionLost",
    "Deadline",
    "DeadlineExceeded",
    "InterceptedCall",
    "Interceptor",
    "Observer",
    "RPCOptions",
    "RawCodec",
    "Servable",
    "Server",
    "ServerStream",
    "open_channel",
]

_HOMES = {  # A plugin needs the server, a host the channel.
    "_channel": ("Channel", "open_channel"),
    "_client_stream": ("ClientStream",),
    "_codecs": ("RawCodec",),
    "_interceptors": ("InterceptedCall", "Interceptor", "Observer"),
    "_metadata": ("Deadline",),
    "_options": ("RPCOptions",),
    "_server": ("Servable", "Server"),
    "_server_stream": ("ServerStream",),
    "_status": ("CallStatus",),
    "errors": ("CallRefused", "ConnectionLost", "DeadlineExceeded"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
