"""Plugins in processes of their own, called over gRPC, on asyncio and on trio.

The names below are all that most programs need. Each is loaded when it is first used, so that
importing the package costs next to nothing: a plugin's user waits for every import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names
from pyvider_rpcplugin._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client import PluginHost, RPCPluginClient
    from .client.supervision import PluginEvent, PoolPolicy, RestartPolicy
    from .config import configure
    from .discovery import (
        EnvironmentProgress,
        InstalledPlugins,
        PluginProgram,
        discover,
        python_plugin,
    )
    from .exception import (
        ConfigError,
        HandshakeError,
        PluginExit,
        ProtocolError,
        RPCPluginError,
        SecurityError,
        TransportError,
    )
    from .factories import (
        plugin_client,
        plugin_mux,
        plugin_pool,
        plugin_protocol,
        plugin_server,
    )
    from .handshake import (
        ReattachConfig,
        format_reattach_providers,
        parse_reattach_providers,
    )
    from .process import ResourceLimits, SecureConfig
    from .protocol.base import RPCPluginProtocol
    from .protocol.typed import RemoteError, raises
    from .rpc import ConnectionLost, DeadlineExceeded
    from .server import PluginMux, RPCPluginServer
    from .services import context
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


__all__ = [
    "TRANSPORT_TYPES",
    "ConfigError",
    "ConfigT",
    "ConnectionLost",
    "DeadlineExceeded",
    "EnvironmentProgress",
    "GrpcChannelType",
    "GrpcCredentialsType",
    "HandlerT",
    "HandshakeError",
    "InstalledPlugins",
    "PluginEvent",
    "PluginExit",
    "PluginHost",
    "PluginMux",
    "PluginProgram",
    "PoolPolicy",
    "ProtocolError",
    "ProtocolT",
    "RPCPluginClient",
    "RPCPluginError",
    "RPCPluginProtocol",
    "RPCPluginServer",
    "ReattachConfig",
    "RemoteError",
    "ResourceLimits",
    "RestartPolicy",
    "RpcConfigType",
    "SecureConfig",
    "SecurityError",
    "TCPSocketTransport",
    "TransportError",
    "TransportT",
    "UnixSocketTransport",
    "__version__",
    "configure",
    "context",
    "discover",
    "format_reattach_providers",
    "parse_reattach_providers",
    "plugin_client",
    "plugin_mux",
    "plugin_pool",
    "plugin_protocol",
    "plugin_server",
    "python_plugin",
    "raises",
]

_HOMES = {
    "client": ("PluginHost", "RPCPluginClient"),
    "client.supervision": ("PluginEvent", "PoolPolicy", "RestartPolicy"),
    "config": ("configure",),
    "discovery": (
        "EnvironmentProgress",
        "InstalledPlugins",
        "PluginProgram",
        "discover",
        "python_plugin",
    ),
    "exception": (
        "ConfigError",
        "HandshakeError",
        "PluginExit",
        "ProtocolError",
        "RPCPluginError",
        "SecurityError",
        "TransportError",
    ),
    "factories": (
        "plugin_client",
        "plugin_mux",
        "plugin_pool",
        "plugin_protocol",
        "plugin_server",
    ),
    "handshake": ("ReattachConfig", "format_reattach_providers", "parse_reattach_providers"),
    "process": ("ResourceLimits", "SecureConfig"),
    "protocol.base": ("RPCPluginProtocol",),
    "protocol.typed": ("RemoteError", "raises"),
    "rpc": ("ConnectionLost", "DeadlineExceeded"),
    "server": ("PluginMux", "RPCPluginServer"),
    "services": ("context",),
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


__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
