"""What tests of hosts and plugins need: pairs, plugins that misbehave, and checks.

Nothing here is loaded by a host or a plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._certificates import CertificateAuthority, IssuedCertificate
    from ._leaks import assert_nothing_leaked
    from ._pairs import connected, launched, plugin_command
    from ._scripted import Scripted, scripted_plugin
    from .contract import CheckResult, ContractReport, check_plugin

__all__ = [
    "CertificateAuthority",
    "CheckResult",
    "ContractReport",
    "IssuedCertificate",
    "Scripted",
    "assert_nothing_leaked",
    "check_plugin",
    "connected",
    "launched",
    "plugin_command",
    "scripted_plugin",
]

_HOMES = {
    "_certificates": ("CertificateAuthority", "IssuedCertificate"),
    "_leaks": ("assert_nothing_leaked",),
    "_pairs": ("connected", "launched", "plugin_command"),
    "_scripted": ("Scripted", "scripted_plugin"),
    "contract": ("CheckResult", "ContractReport", "check_plugin"),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
