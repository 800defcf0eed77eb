"""Plugins in processes of their own, called over gRPC, on asyncio and on trio.

The names below are all that most programs need. Each is loaded when it is first used, so that
importing the package costs next to nothing: a plugin's user waits for every import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import PluginHost, RPCPluginClient
    from .config import configure
    from .exception import (
        ConfigError,
        HandshakeError,
        PluginExit,
        ProtocolError,
        RPCPluginError,
        SecurityError,
        TransportError,
    )
    from .factories import plugin_client, plugin_protocol, plugin_server
    from .protocol.base import RPCPluginProtocol
    from .server import RPCPluginServer
    from .transport import TCPSocketTransport, UnixSocketTransport
    from .types import (
        TRANSPORT_TYPES,
        ConfigT,
        GrpcChannelType,
        GrpcCredentialsType,
        HandlerT,
        ProtocolT,
        RpcConfigType,
        TransportT,
    )

__version__ = "1.0.0.dev0"

__all__ = [
    "TRANSPORT_TYPES",
    "ConfigError",
    "ConfigT",
    "GrpcChannelType",
    "GrpcCredentialsType",
    "HandlerT",
    "HandshakeError",
    "PluginExit",
    "PluginHost",
    "ProtocolError",
    "ProtocolT",
    "RPCPluginClient",
    "RPCPluginError",
    "RPCPluginProtocol",
    "RPCPluginServer",
    "RpcConfigType",
    "SecurityError",
    "TCPSocketTransport",
    "TransportError",
    "TransportT",
    "UnixSocketTransport",
    "__version__",
    "configure",
    "plugin_client",
    "plugin_protocol",
    "plugin_server",
]

_HOMES = {
    "client": ("PluginHost", "RPCPluginClient"),
    "config": ("configure",),
    "exception": (
        "ConfigError",
        "HandshakeError",
        "PluginExit",
        "ProtocolError",
        "RPCPluginError",
        "SecurityError",
        "TransportError",
    ),
    "factories": ("plugin_client", "plugin_protocol", "plugin_server"),
    "protocol.base": ("RPCPluginProtocol",),
    "server": ("RPCPluginServer",),
    "transport": ("TCPSocketTransport", "UnixSocketTransport"),
    "types": (
        "TRANSPORT_TYPES",
        "ConfigT",
        "GrpcChannelType",
        "GrpcCredentialsType",
        "HandlerT",
        "ProtocolT",
        "RpcConfigType",
        "TransportT",
    ),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module  # noqa: PLC0415 - only when a name is used

            value: object = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
