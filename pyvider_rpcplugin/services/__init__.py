"""The services that every plugin serves beside its own."""

from __future__ import annotations

from ._settings import apply_log_level, check_keywords, rpc_options
from .controller import ControllerService, request_shutdown
from .health import PLUGIN_SERVICE, HealthService, ServingStatus, check_health

__all__ = [
    "PLUGIN_SERVICE",
    "ControllerService",
    "HealthService",
    "ServingStatus",
    "apply_log_level",
    "check_health",
    "check_keywords",
    "request_shutdown",
    "rpc_options",
]
