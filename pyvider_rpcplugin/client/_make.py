"""From keyword arguments to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyvider_rpcplugin.services import check_keywords

from ._client import RPCPluginClient

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from pyvider_rpcplugin.discovery import PluginProgram

OPTIONS = (
    "env",
    "inherit_env",
    "cwd",
    "stdin",
    "tls",
    "secure",
    "limits",
    "address",
    "reattach",
    "runner",
    "sync_stdout",
    "sync_stderr",
    "stderr",
    "on_exit",
    "debug",
    "default_deadline",
    "interceptors",
    "restart",
    "lazy",
    "idle_timeout",
    "pool",
    "on_event",
    "services",
)


def make_client(
    command: Sequence[str | os.PathLike[str]] | PluginProgram | None,
    config: Mapping[str, Any] | None,
    **keywords: Any,
) -> RPCPluginClient:
    """Make a client; what is not one of its options is a setting.

    Raises:
        ConfigError: A keyword is neither.
    """
    options = {name: keywords.pop(name) for name in OPTIONS if name in keywords}
    check_keywords(keywords, OPTIONS, "plugin_client()")
    return RPCPluginClient(command, config, settings=keywords, **options)
