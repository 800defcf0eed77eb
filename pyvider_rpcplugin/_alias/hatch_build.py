"""Adds to each wheel what type checkers read under the name ``pyvider.rpcplugin``.

For every public module of ``pyvider_rpcplugin`` there is a file of one line that repeats its
names. They are made here and not kept in the tree, so none can be forgotten.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "pyvider_rpcplugin"
SECOND_NAME = "pyvider/rpcplugin"


def public_modules(root: Path) -> Iterator[Path]:
    """The files of the public modules, relative to the package, without the package's own."""
    package = root / PACKAGE
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        names = relative.parent.parts if path.stem == "__init__" else relative.with_suffix("").parts
        if names and not any(name.startswith("_") for name in names):
            yield relative


def twin(relative: Path) -> str:
    """What the file says that stands for the module ``relative`` under the second name."""
    names = relative.parent.parts if relative.stem == "__init__" else relative.with_suffix("").parts
    module = ".".join((PACKAGE, *names))
    return (
        f'"""See ``{module}``: at run time it is that very module."""\n\nfrom {module} import *\n'
    )


class SecondNameHook(BuildHookInterface[Any]):
    """Makes the files before the build, and removes them after it."""

    folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the files, and have them put into the wheel, be it editable or not."""
        if self.target_name != "wheel":
            return
        self.folder = Path(tempfile.mkdtemp(prefix="pyvider-rpcplugin-"))
        for relative in public_modules(Path(self.root)):
            path = self.folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(twin(relative), encoding="utf-8")
            build_data["force_include"][str(path)] = f"{SECOND_NAME}/{relative.as_posix()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
