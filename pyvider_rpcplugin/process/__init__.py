"""A plugin's process: check it, start it, hear it out, and end it together with its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.process._attached import attach_process
    from pyvider_rpcplugin.process._lines import LineSplitter
    from pyvider_rpcplugin.process._process import (
        PluginProcess,
        start_process,
        subprocess_runner,
        supervised,
    )
    from pyvider_rpcplugin.process._resources import resident_memory
    from pyvider_rpcplugin.process._spec import RunSpec
    from pyvider_rpcplugin.process._verify import Checked, checked
    from pyvider_rpcplugin.process.checksum import SecureConfig
    from pyvider_rpcplugin.process.limits import ResourceLimits
    from pyvider_rpcplugin.process.runners import (
        AttachedRunner,
        ByteSource,
        Runner,
        RunnerFactory,
        WrappedRunner,
    )

__all__ = [
    "AttachedRunner",
    "ByteSource",
    "Checked",
    "LineSplitter",
    "PluginProcess",
    "ResourceLimits",
    "RunSpec",
    "Runner",
    "RunnerFactory",
    "SecureConfig",
    "WrappedRunner",
    "attach_process",
    "checked",
    "resident_memory",
    "start_process",
    "subprocess_runner",
    "supervised",
]

_HOMES = {
    "_attached": ("attach_process",),
    "_lines": ("LineSplitter",),
    "_process": ("PluginProcess", "start_process", "subprocess_runner", "supervised"),
    "_spec": ("RunSpec",),
    "_resources": ("resident_memory",),
    "_verify": ("Checked", "checked"),
    "checksum": ("SecureConfig",),
    "limits": ("ResourceLimits",),
    "runners": ("AttachedRunner", "ByteSource", "Runner", "RunnerFactory", "WrappedRunner"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
