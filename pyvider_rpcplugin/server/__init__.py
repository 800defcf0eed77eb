"""The plugin's side: a server that a host starts and calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._mux import PluginMux
    from ._server import RPCPluginServer

__all__ = ["PluginMux", "RPCPluginServer"]

_HOMES = {"_mux": ("PluginMux",), "_server": ("RPCPluginServer",)}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
