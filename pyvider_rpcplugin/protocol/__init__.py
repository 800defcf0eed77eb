"""Protocols: which services a plugin serves, and how its handler becomes their methods."""

from __future__ import annotations

from ._versions import services_by_version
from .base import RPCPluginProtocol
from .basic import BasicProtocol, register

__all__ = ["BasicProtocol", "RPCPluginProtocol", "register", "services_by_version"]
