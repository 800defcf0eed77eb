"""Which plugins are installed, and the Python environments that they run in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._find import InstalledPlugins, discover
    from ._program import EnvironmentProgress, PluginProgram, PreparedProgram
    from ._python import python_plugin

__all__ = [
    "EnvironmentProgress",
    "InstalledPlugins",
    "PluginProgram",
    "PreparedProgram",
    "discover",
    "python_plugin",
]

_HOMES = {
    "_find": ("InstalledPlugins", "discover"),
    "_program": ("EnvironmentProgress", "PluginProgram", "PreparedProgram"),
    "_python": ("python_plugin",),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
