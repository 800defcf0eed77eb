"""The plugin's side: a server that a host starts and calls."""

from __future__ import annotations

from ._server import RPCPluginServer

__all__ = ["RPCPluginServer"]
