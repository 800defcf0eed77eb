"""The host's side: clients that start plugins and call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._client import RPCPluginClient
    from ._host import PluginHost
    from ._make import make_client

__all__ = ["PluginHost", "RPCPluginClient", "make_client"]

_HOMES = {  # Most hosts start their plugins one by one.
    "_client": ("RPCPluginClient",),
    "_host": ("PluginHost",),
    "_make": ("make_client",),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
