"""A plugin's process: check it, start it, hear it out, and end it together with its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.process._lines import LineSplitter
    from pyvider_rpcplugin.process._process import PluginProcess, start_process
    from pyvider_rpcplugin.process._verify import Checked, checked
    from pyvider_rpcplugin.process.checksum import SecureConfig
    from pyvider_rpcplugin.process.limits import ResourceLimits

__all__ = [
    "Checked",
    "LineSplitter",
    "PluginProcess",
    "ResourceLimits",
    "SecureConfig",
    "checked",
    "start_process",
]

_HOMES = {
    "_lines": ("LineSplitter",),
    "_process": ("PluginProcess", "start_process"),
    "_verify": ("Checked", "checked"),
    "checksum": ("SecureConfig",),
    "limits": ("ResourceLimits",),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
