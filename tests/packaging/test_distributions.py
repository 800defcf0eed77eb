"""What is in the wheel and in the source distribution. Both are built without a network."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from pyvider_rpcplugin import __version__

ROOT = Path(__file__).parents[2]
NAME = f"pyvider_rpcplugin-{__version__}"


def build(kind: str, tree: Path, folder: Path) -> Path:
    """Build a wheel or an sdist of a tree with the backend itself."""
    code = f"from hatchling.build import build_{kind}; print(build_{kind}({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.split()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as opened:
        opened.extractall(folder / "unpacked", filter="data")
    [tree] = (folder / "unpacked").iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> dict[str, bytes]:
    return contents(build("wheel", ROOT, tmp_path_factory.mktemp("wheel")))


def test_the_wheel_has_the_package_under_both_names_and_nothing_else(wheel):
    information = f"{NAME}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"pyvider_rpcplugin", "pyvider", information}
    assert {name.split("/")[1] for name in wheel if name.startswith("pyvider/")} == {"rpcplugin"}
    code = [name for name in wheel if not name.startswith(information)]
    odd = {name for name in code if not name.endswith(".py")}
    assert odd == {"pyvider_rpcplugin/py.typed", "pyvider/rpcplugin/py.typed"}
    package = ROOT / "pyvider_rpcplugin"
    assert {name for name in code if name.startswith("pyvider_rpcplugin/")} == {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.suffix in {".py", ".typed"} and path.relative_to(package).parts[0] != "_alias"
    }
    assert f"{information}/licenses/LICENSE" in wheel


def test_the_wheel_says_what_it_is(wheel):
    metadata = email.message_from_bytes(wheel[f"{NAME}.dist-info/METADATA"])
    assert metadata["Name"] == "pyvider-rpcplugin"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    systems = [said for said in metadata.get_all("Classifier", []) if "Operating System" in said]
    assert systems == ["Operating System :: POSIX :: Linux"]
    entry_points = wheel[f"{NAME}.dist-info/entry_points.txt"].decode()
    assert "hook-dirs = pyvider_rpcplugin._pyinstaller:get_hook_dirs" in entry_points


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    tree = shutil.copytree(sdist, tmp_path / "tree")
    assert contents(build("wheel", tree, tmp_path)) == wheel


def test_the_sdist_has_what_the_repository_has(sdist):
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no checkout")
    ours = {name for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    left_out = {".ci", ".github", ".pre-commit-config.yaml"}
    packed = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    expected = {name for name in ours if name.split("/")[0] not in left_out} | {"PKG-INFO"}
    # What is new here and not ignored is packed, too.
    assert expected <= packed
    assert {PurePosixPath(name).parts[0] for name in packed} == {
        ".gitignore", "LICENSE", "PKG-INFO", "README.md", "docs", "examples", "noxfile.py",
        "pyproject.toml", "pyvider_rpcplugin", "tests",
    }  # fmt: skip


def test_the_version_stands_in_one_place(sdist):
    sources = [path for path in sdist.rglob("*") if path.suffix in {".py", ".toml"}]
    found = [path for path in sources if __version__ in path.read_text(encoding="utf-8")]
    assert found == [sdist / "pyvider_rpcplugin" / "_version.py"]
