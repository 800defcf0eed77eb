"""The host's side: clients that start plugins and call them."""

from __future__ import annotations

from ._client import RPCPluginClient
from ._host import PluginHost
from ._make import make_client

__all__ = ["PluginHost", "RPCPluginClient", "make_client"]
