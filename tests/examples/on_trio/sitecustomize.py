"""Every Python that has this folder on its path runs plugins on trio, where they do not say on what."""

from __future__ import annotations

from pyvider_rpcplugin import RPCPluginServer
from pyvider_rpcplugin.sync import plugin_client_sync

RPCPluginServer.run.__defaults__ = ("trio",)
assert plugin_client_sync.__kwdefaults__ is not None
plugin_client_sync.__kwdefaults__["backend"] = "trio"
