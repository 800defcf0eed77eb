"""What PyInstaller puts into a program that imports ``pyvider_rpcplugin``."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

PACKAGE = "pyvider_rpcplugin"
# For whoever builds and tests plugins, or with needs of its own. A program that does import one of
# them gets it all the same.
LEFT_OUT = ("__main__", "_alias", "_pyinstaller", "admin", "cli", "codegen", "otel", "testing")


def is_needed(module: str) -> bool:
    """Whether a program may need a module without naming it."""
    return module.partition(".")[2].partition(".")[0] not in LEFT_OUT


hiddenimports = [
    *collect_submodules(PACKAGE, filter=is_needed),
    # anyio loads the one of the loop that runs, and protobuf its implementation, by a string.
    "anyio._backends._asyncio",
    "anyio._backends._trio",
    "google._upb._message",
]
