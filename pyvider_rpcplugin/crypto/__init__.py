"""Certificates, keys, and `ssl` contexts for each side of a connection.

Computing only: nothing here waits for anything but a file. AutoMTLS, which each start of a plugin
goes through, does without the large library that reads certificates; that is loaded for
certificates that people bring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.crypto._certificate import Certificate
    from pyvider_rpcplugin.crypto._generated import GeneratedCertificate
    from pyvider_rpcplugin.crypto._identity import Identity, Roots, load_identity, load_roots
    from pyvider_rpcplugin.crypto._recorded import recorded_credentials
    from pyvider_rpcplugin.crypto._template import auto_certificate, make_certificate
    from pyvider_rpcplugin.crypto.contexts import (
        auto_client_context,
        auto_server_context,
        client_context,
        require_certificate,
        require_h2,
        server_context,
    )
    from pyvider_rpcplugin.crypto.credentials import (
        Credentials,
        HostTLS,
        Mode,
        PluginTLS,
        host_tls,
        plugin_tls,
    )

__all__ = [
    "Certificate",
    "Credentials",
    "GeneratedCertificate",
    "HostTLS",
    "Identity",
    "Mode",
    "PluginTLS",
    "Roots",
    "auto_certificate",
    "auto_client_context",
    "auto_server_context",
    "client_context",
    "host_tls",
    "load_identity",
    "load_roots",
    "make_certificate",
    "plugin_tls",
    "recorded_credentials",
    "require_certificate",
    "require_h2",
    "server_context",
]

_HOMES = {
    "_certificate": ("Certificate",),
    "_generated": ("GeneratedCertificate",),
    "_identity": ("Identity", "Roots", "load_identity", "load_roots"),
    "_recorded": ("recorded_credentials",),
    "_template": ("auto_certificate", "make_certificate"),
    "contexts": (
        "auto_client_context",
        "auto_server_context",
        "client_context",
        "require_certificate",
        "require_h2",
        "server_context",
    ),
    "credentials": ("Credentials", "HostTLS", "Mode", "PluginTLS", "host_tls", "plugin_tls"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
