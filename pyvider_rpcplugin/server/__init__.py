"""The plugin's side: a server that a host starts and calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

from ._server import RPCPluginServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._mux import PluginMux

__all__ = ["PluginMux", "RPCPluginServer"]

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, {"_mux": ("PluginMux",)}, globals())
