"""The services that every plugin serves beside its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

from ._settings import apply_log_level, check_keywords, rpc_options
from .controller import ControllerService, request_shutdown
from .health import PLUGIN_SERVICE, HealthService, ServingStatus, check_health

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._brokers import host_broker, plugin_broker
    from ._context import CallContext, context
    from ._shared import SharedWays
    from .broker import Broker, current_broker, current_version
    from .reflection import ReflectionService
    from .stdio import OutputBuffer, StdioChannel, StdioService, receive_output

__all__ = [
    "PLUGIN_SERVICE",
    "Broker",
    "CallContext",
    "ControllerService",
    "HealthService",
    "OutputBuffer",
    "ReflectionService",
    "ServingStatus",
    "SharedWays",
    "StdioChannel",
    "StdioService",
    "apply_log_level",
    "check_health",
    "check_keywords",
    "context",
    "current_broker",
    "current_version",
    "host_broker",
    "plugin_broker",
    "receive_output",
    "request_shutdown",
    "rpc_options",
]

_HOMES = {  # A host's start-up does not need them.
    "_brokers": ("host_broker", "plugin_broker"),
    "_context": ("CallContext", "context"),
    "_shared": ("SharedWays",),
    "broker": ("Broker", "current_broker", "current_version"),
    "reflection": ("ReflectionService",),
    "stdio": ("OutputBuffer", "StdioChannel", "StdioService", "receive_output"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
