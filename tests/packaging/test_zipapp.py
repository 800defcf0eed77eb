"""Plugins as zip archives, run by the interpreter."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from pyvider.rpcplugin import SecureConfig, plugin_client

from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

from .program import Counter, Store

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "one_file"
PACKAGE = ROOT / "pyvider_rpcplugin"
PYTHON = f"/usr/bin/env {Path(sys.executable).name}"


def archive(source: Path, interpreter: str | None = None, main: str | None = None) -> str:
    """What `python -m zipapp` makes of a folder."""
    target = source.with_suffix(".pyz")
    zipapp.create_archive(source, target, interpreter, main)
    return str(target)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, with this package under both of its names, and without their dependencies."""
    source = tmp_path_factory.mktemp("zipapp") / "program"
    caches = shutil.ignore_patterns("__pycache__", "_alias")
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=caches)
    shutil.copytree(PACKAGE / "_alias" / "pyvider", source / "pyvider", ignore=caches)
    for name in ("tests/__init__.py", "tests/plugins/__init__.py", "tests/plugins/echo_plugin.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "tests" / "protos", source / "tests" / "protos", ignore=caches)
    shutil.copy(Path(__file__).with_name("program.py"), source / "__main__.py")
    return archive(source)


async def test_a_plugin_and_this_package_run_out_of_an_archive(packed, anyio_backend_name):
    command = [sys.executable, packed, "plugin", anyio_backend_name]
    secure = SecureConfig.of(command)
    async with plugin_client(command, services=[Store()], secure=secure) as client:
        counter = client.proxy(Counter)
        facts = await counter.facts()
        assert (facts.loop, facts.pid) == (anyio_backend_name, client.pid)
        assert facts.origin == os.path.join(packed, "pyvider_rpcplugin", "__init__.py")
        assert await counter.asks("ada") == "ADA"
        assert [n async for n in counter.count(3)] == [3, 2, 1]
        assert await counter.loads("pyvider.rpcplugin.sync") == "pyvider_rpcplugin.sync"


async def test_a_plugin_in_an_archive_serves_generated_code(packed, anyio_backend_name):
    command = [sys.executable, packed, "protobuf", anyio_backend_name]
    async with plugin_client(command) as client:
        answer = await client.stub(EchoStub).Unary(EchoRequest(text="loop"))
    assert answer.text == anyio_backend_name


def dependencies(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """The distributions that a distribution needs here, and those that these need."""
    for requirement in importlib.metadata.requires(name) or ():
        needed = re.match(r"[\w.-]+", requirement)
        assert needed is not None
        if "extra ==" in requirement or needed[0] in found:
            continue
        try:
            found[needed[0]] = importlib.metadata.distribution(needed[0])
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system, or another Python
        dependencies(needed[0], found)


def install(target: Path) -> None:
    """Put this package and its dependencies into a folder, as `pip install --target` does."""
    found: dict[str, importlib.metadata.Distribution] = {}
    dependencies("pyvider-rpcplugin", found)
    for distribution in found.values():
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target / file)
    ignored = shutil.ignore_patterns("__pycache__", "_alias")
    shutil.copytree(PACKAGE, target / PACKAGE.name, ignore=ignored)


@pytest.fixture(scope="module")
def packed_with_all(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, with all that it needs."""
    source = tmp_path_factory.mktemp("zipapp") / "greeter"
    install(source)
    shutil.copy(EXAMPLE / "greeter_plugin.py", source)
    shutil.copy(EXAMPLE / "unpack.py", source / "__main__.py")
    return archive(source, interpreter=PYTHON)


@pytest.fixture(scope="module")
def packed_alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, for an interpreter that has all that it needs."""
    source = tmp_path_factory.mktemp("zipapp") / "greeter"
    source.mkdir()
    shutil.copy(EXAMPLE / "greeter_plugin.py", source)
    return archive(source, interpreter=PYTHON, main="greeter_plugin:main")


def run_host(loop: str, *command: str) -> str:
    """Run the example's host; return what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "host.py"), loop, *command],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ANSWER = "Hello, Ada.\n[3, 2, 1]\n"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_archive_without_dependencies_runs_where_they_are(loop, packed_alone):
    assert run_host(loop, packed_alone) == ANSWER


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_archive_with_its_dependencies_runs_where_there_are_none(
    loop, packed_with_all, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bare = [sys.executable, "-I", "-S"]
    assert run_host(loop, *bare, packed_with_all) == ANSWER
    [unpacked] = (tmp_path / "greeter_plugin").iterdir()
    made = unpacked.stat().st_ino
    assert run_host(loop, packed_with_all) == ANSWER
    assert [path.stat().st_ino for path in (tmp_path / "greeter_plugin").iterdir()] == [made]
