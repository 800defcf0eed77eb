"""How bytes travel between host and plugin: TCP, Unix sockets, and memory for tests.

A transport is a value that knows where to listen or connect. It does no I/O until it is used,
and what it opens lives as long as the `async with` block that opened it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.transport._blocking import BlockingSocket, blocking_socket
    from pyvider_rpcplugin.transport._choose import transport_for
    from pyvider_rpcplugin.transport._stream import SocketListener, SocketStream
    from pyvider_rpcplugin.transport._tls import (
        TLSListener,
        TLSRefusedError,
        TLSStream,
        wrap_client,
        wrap_server,
    )
    from pyvider_rpcplugin.transport.base import Connecting, RPCPluginTransport, StreamListener
    from pyvider_rpcplugin.transport.memory import MemoryTransport
    from pyvider_rpcplugin.transport.tcp import TCPSocketTransport
    from pyvider_rpcplugin.transport.unix import UnixSocketTransport

__all__ = [
    "BlockingSocket",
    "Connecting",
    "MemoryTransport",
    "RPCPluginTransport",
    "SocketListener",
    "SocketStream",
    "StreamListener",
    "TCPSocketTransport",
    "TLSListener",
    "TLSRefusedError",
    "TLSStream",
    "UnixSocketTransport",
    "blocking_socket",
    "transport_for",
    "wrap_client",
    "wrap_server",
]

_HOMES = {
    "_blocking": ("BlockingSocket", "blocking_socket"),
    "_choose": ("transport_for",),
    "_stream": ("SocketListener", "SocketStream"),
    "_tls": ("TLSListener", "TLSRefusedError", "TLSStream", "wrap_client", "wrap_server"),
    "base": ("Connecting", "RPCPluginTransport", "StreamListener"),
    "memory": ("MemoryTransport",),
    "tcp": ("TCPSocketTransport",),
    "unix": ("UnixSocketTransport",),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
