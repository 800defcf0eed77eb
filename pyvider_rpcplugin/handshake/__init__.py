"""How host and plugin come to an agreement, as decisions without I/O.

A host puts a cookie, the versions that it speaks and a few wishes into the environment of the
plugin that it starts. The plugin answers with one line on its standard output, which says where
it listens. Everything here takes text and bytes and gives text, values and errors: who reads and
writes them is the business of ``client`` and ``server``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.handshake._cookie import check_cookie
    from pyvider_rpcplugin.handshake._environment import build_environment
    from pyvider_rpcplugin.handshake._line import (
        CORE_VERSION,
        NETWORKS,
        HandshakeRecord,
        format_handshake_line,
        parse_handshake_line,
    )
    from pyvider_rpcplugin.handshake._reader import NOISE_LIMIT, HandshakeReader
    from pyvider_rpcplugin.handshake._reattach import (
        ReattachConfig,
        format_reattach_providers,
        parse_reattach_providers,
    )
    from pyvider_rpcplugin.handshake._versions import choose_version, format_versions

__all__ = [
    "CORE_VERSION",
    "NETWORKS",
    "NOISE_LIMIT",
    "HandshakeReader",
    "HandshakeRecord",
    "ReattachConfig",
    "build_environment",
    "check_cookie",
    "choose_version",
    "format_handshake_line",
    "format_reattach_providers",
    "format_versions",
    "parse_handshake_line",
    "parse_reattach_providers",
]

_HOMES = {  # Each side needs its part of them, and a host most of its own only after the spawn.
    "_cookie": ("check_cookie",),
    "_environment": ("build_environment",),
    "_line": (
        "CORE_VERSION",
        "NETWORKS",
        "HandshakeRecord",
        "format_handshake_line",
        "parse_handshake_line",
    ),
    "_reader": ("NOISE_LIMIT", "HandshakeReader"),
    "_reattach": ("ReattachConfig", "format_reattach_providers", "parse_reattach_providers"),
    "_versions": ("choose_version", "format_versions"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
