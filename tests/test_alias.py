"""The package under both of its names, in throwaway environments beside other distributions."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyvider_rpcplugin"

# What other distributions put under the same folder.
NEIGHBOURS = {
    "alone": {},
    "pep420": {"pyvider/other/__init__.py": "here = True\n"},
    "pkgutil": {
        "pyvider/__init__.py": "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n",
        "pyvider/other/__init__.py": "here = True\n",
    },
}


def public_modules() -> list[str]:
    """The public modules without the package itself, as `transport.unix`."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and not any(part.startswith("_") for part in parts):
            found.append(".".join(parts))
    return sorted(found)


def build(kind: str, folder: Path) -> Path:
    """Build a wheel (`wheel` or `editable`) with the backend itself, which needs no network."""
    code = f"from hatchling.build import build_{kind}; print(build_{kind}({str(folder)!r}))"
    return folder / run([sys.executable, "-c", code], cwd=ROOT).split()[-1]


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    kinds = ("wheel", "editable")
    return {kind: build(kind, tmp_path_factory.mktemp(kind)) for kind in kinds}


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory) -> Path:
    """A folder with all that is installed here except this package itself."""
    folder = tmp_path_factory.mktemp("dependencies")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(place).iterdir():
            if "pyvider" not in path.name and path.suffix != ".pth":
                (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory, wheels, dependencies):
    """Makes an environment with the package installed, and returns its interpreter."""
    made = {}

    def make(kind: str, neighbours: str, place: str = "beside") -> str:
        if (kind, neighbours, place) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{neighbours}-{place}")
            venv.create(folder, with_pip=False, symlinks=True)
            python = folder / "bin" / "python"
            [site] = (folder / "lib").glob("python*/site-packages")
            elsewhere = folder / "elsewhere"
            with zipfile.ZipFile(wheels[kind]) as wheel:
                wheel.extractall(site)
            for name, text in NEIGHBOURS[neighbours].items():
                path = (site if place == "beside" else elsewhere) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            (site / "paths.pth").write_text(f"{elsewhere}\n{dependencies}\n")
            made[kind, neighbours, place] = str(python)
        return made[kind, neighbours, place]

    return make


RUNTIME = """
import importlib, pickle, sys
names = sys.argv[1].split(",")
neighbour = sys.argv[2] != "alone"
first, second = ("pyvider_rpcplugin", "pyvider.rpcplugin")
if sys.argv[3] == "second name first":
    first, second = second, first
assert importlib.import_module(first) is importlib.import_module(second)
for name in names:
    one = importlib.import_module(f"{first}.{name}")
    other = importlib.import_module(f"{second}.{name}")
    assert one is other, name
    assert one.__name__ == one.__spec__.name == f"pyvider_rpcplugin.{name}", one.__spec__
    assert sys.modules[f"{first}.{name}"] is sys.modules[f"{second}.{name}"]

import pyvider.rpcplugin
from pyvider.rpcplugin import RPCPluginError, exception
from pyvider.rpcplugin.exception import TransportError
assert importlib.reload(exception) is exception
assert importlib.util.find_spec("pyvider.rpcplugin.no_such_module") is None
assert pickle.loads(pickle.dumps(exception.TransportError)) is exception.TransportError
if neighbour:
    import pyvider.other
    assert pyvider.other.here
print("same", len(names))
"""


@pytest.mark.parametrize("order", ["first name first", "second name first"])
@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_both_names_are_the_same_modules(environment, kind, neighbours, order, tmp_path):
    python = environment(kind, neighbours)
    names = public_modules()
    said = run(
        [python, "-W", "error", "-c", RUNTIME, ",".join(names), neighbours, order], cwd=tmp_path
    )
    assert said.split() == ["same", str(len(names))]


@pytest.mark.parametrize("neighbours", ["pep420", "pkgutil"])
def test_both_names_are_the_same_beside_a_distribution_installed_elsewhere(
    environment, neighbours, tmp_path
):
    python = environment("wheel", neighbours, "elsewhere")
    names = public_modules()
    run([python, "-W", "error", "-c", RUNTIME, ",".join(names), neighbours, ""], cwd=tmp_path)


def test_the_wheel_has_the_package_once_and_a_file_for_each_public_module(wheels):
    with zipfile.ZipFile(wheels["wheel"]) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert "pyvider/__init__.py" not in files
    assert not [name for name in files if "_alias" in name]
    assert {"pyvider_rpcplugin/py.typed", "pyvider/rpcplugin/py.typed"} <= files
    twins = {name.removeprefix("pyvider/rpcplugin/") for name in files if "pyvider/rpc" in name}
    for name in public_modules():
        path = name.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & twins, name
    assert len(twins) == len(public_modules()) + 2


def snippet() -> str:
    """A program that passes a type checker only if all classes are the same under both names."""
    lines = [
        "from typing import assert_type",
        "import pyvider.rpcplugin",
        "import pyvider_rpcplugin",
    ]
    checks = [
        "assert_type(pyvider.rpcplugin.__version__, str)",
        "assert_type(pyvider.rpcplugin.TransportError, type[pyvider_rpcplugin.TransportError])",
    ]
    for name in public_modules():
        lines += [f"import pyvider.rpcplugin.{name}", f"import pyvider_rpcplugin.{name}"]
        module = importlib.import_module(f"pyvider_rpcplugin.{name}")
        for member in getattr(module, "__all__", ()):
            value = getattr(module, member)
            if inspect.isclass(value) and not getattr(value, "__parameters__", ()):
                both = (f"pyvider{dot}rpcplugin.{name}.{member}" for dot in "._")
                checks.append("assert_type({}, type[{}])".format(*both))
    checks += [
        "from pyvider.rpcplugin.exception import RPCPluginError as Second",
        "from pyvider_rpcplugin.exception import RPCPluginError as First",
        "def take(error: First) -> None: ...",
        "take(Second('message'))",
    ]
    return "\n".join([*lines, *checks, ""])


CHECKED = [("wheel", "pkgutil"), ("editable", "pep420")]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("kind", "neighbours"), CHECKED)
def test_mypy_sees_the_same_types_under_both_names(environment, kind, neighbours, tmp_path):
    (tmp_path / "snippet.py").write_text(snippet())
    run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=",
         "--python-executable", environment(kind, neighbours), "snippet.py"],
        cwd=tmp_path,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("kind", "neighbours"), CHECKED)
def test_pyright_sees_the_same_types_under_both_names(environment, kind, neighbours, tmp_path):
    (tmp_path / "snippet.py").write_text(
        "# pyright: strict, reportUnusedImport=false\n" + snippet()
    )
    (tmp_path / "tmp").mkdir()
    run(
        [sys.executable, "-m", "pyright", "--warnings",
         "--pythonpath", environment(kind, neighbours), "snippet.py"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip


def test_the_second_name_runs_as_a_program_like_the_first(environment, tmp_path):
    said = textwrap.dedent("""
        import importlib.util, sys
        import pyvider.rpcplugin
        spec = importlib.util.find_spec("pyvider.rpcplugin.exception")
        assert spec.name == "pyvider.rpcplugin.exception"
        code = spec.loader.get_code(spec.name)
        import pyvider_rpcplugin.exception as first
        assert code.co_filename == first.__file__
    """)
    run([environment("wheel", "alone"), "-W", "error", "-c", said], cwd=tmp_path)
