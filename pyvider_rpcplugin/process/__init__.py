"""A plugin's process: start it, hear it out, and end it together with its children."""

from __future__ import annotations

from pyvider_rpcplugin.process._lines import LineSplitter
from pyvider_rpcplugin.process._process import PluginProcess, start_process

__all__ = ["LineSplitter", "PluginProcess", "start_process"]
