"""Small distributions that tests make and install, without an index and without building anything."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, str] | None = None,
    plugins: Mapping[str, str] | None = None,
    requires: tuple[str, ...] = (),
) -> Path:
    """Make a wheel of some modules, with entry points in the group of plugins."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Name: {name}", f"Version: {version}", f"Summary: What {name} does"]
    metadata += [f"Requires-Dist: {one}" for one in requires]
    content = {
        **(files or {}),
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *metadata]) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if plugins:
        lines = [f"{key} = {value}" for key, value in plugins.items()]
        content[f"{info}/entry_points.txt"] = "\n".join(["[pyvider_rpcplugin.plugins]", *lines, ""])
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in content.items():
            archive.writestr(member, text)
    return path


def library(folder: Path) -> Path:
    """A wheel by which an environment sees this library and what that needs, as they are here."""
    places = [*(path for path in sys.path if "packages" in path), str(ROOT)]
    return wheel(folder, "the_library", files={"the_library.pth": "\n".join(places) + "\n"})


def installed(site_packages: Path, path: Path) -> None:
    """Install a wheel by hand."""
    site_packages.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site_packages)
