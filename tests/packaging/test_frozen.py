"""Programs that PyInstaller froze to one file: plugins, and hosts.

Such a file unpacks itself into a temporary folder, runs the program in a child process, and removes
the folder once that has ended.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import psutil
import pytest
from pyvider.rpcplugin import RemoteError, SecureConfig, plugin_client

from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

from .program import Counter, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("program.py")

# What the libraries below use if it is there, as it is for tests, and would make the file larger.
LEFT_OUT = (
    "_pytest",
    "grpc",
    "hypothesis",
    "numpy",
    "pkg_resources",
    "pytest",
    "setuptools",
    "uvloop",
    "yaml",
)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, frozen to one file."""
    faulthandler.cancel_dump_traceback_later()  # this takes as long as a test that hangs
    folder = tmp_path_factory.mktemp("frozen")
    done = subprocess.run(
        [
            sys.executable, "-m", "PyInstaller", "--onefile", "--paths", str(ROOT),
            *(f"--exclude-module={name}" for name in LEFT_OUT),
            *(f"--{place}path={folder / place}" for place in ("dist", "work", "spec")),
            str(PROGRAM),
        ],
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(folder / "config")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(folder / "dist" / PROGRAM.stem)


def unpacked() -> list[Path]:
    """The folders that frozen programs have unpacked themselves into, and not removed."""
    return sorted(Path(tempfile.gettempdir()).glob("_MEI*"))


def ended(*pids: int) -> bool:
    """Whether these processes are gone, or are soon. Who is to reap them, if anybody, is not ours."""
    give_up = time.monotonic() + 5
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def run_host(program: list[str], loop: str, plugin: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A host in a process of its own, which stops its plugin, and itself, when the block is left."""
    command = [*program, "host", loop, *plugin]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as host:
        try:
            yield host
        finally:
            assert host.stdin is not None
            host.stdin.close()


def answers(host: subprocess.Popen[str]) -> dict[str, Any]:
    """What the plugin answered to the host."""
    assert host.stdout is not None
    result: dict[str, Any] = json.loads(host.stdout.readline())
    return result


async def test_a_frozen_plugin_serves_a_class_and_leaves_nothing(frozen, anyio_backend_name):
    command = [frozen, "plugin", anyio_backend_name]
    secure = SecureConfig.of(command)
    async with plugin_client(command, services=[Store()], secure=secure) as client:
        counter = client.proxy(Counter)
        facts = await counter.facts()
        assert facts.loop == anyio_backend_name
        assert facts.parent == client.pid
        assert [Path(facts.unpacked)] == unpacked()
        assert facts.origin.startswith(facts.unpacked)
        assert await counter.asks("ada") == "ADA"
        assert [n async for n in counter.count(3)] == [3, 2, 1]
    assert client.exit is not None
    assert client.exit.status == 0
    assert unpacked() == []


async def test_a_frozen_plugin_serves_generated_code(frozen, anyio_backend_name):
    async with plugin_client([frozen, "protobuf", anyio_backend_name]) as client:
        stub = client.stub(EchoStub)
        assert (await stub.Unary(EchoRequest(text="loop"))).text == anyio_backend_name
        assert len(await stub.ServerStream(EchoRequest(count=3))) == 3


async def test_a_frozen_plugin_has_the_modules_that_no_source_names(frozen, anyio_backend_name):
    async with plugin_client([frozen, "plugin", anyio_backend_name]) as client:
        counter = client.proxy(Counter)
        assert await counter.loads("pyvider.rpcplugin.sync") == "pyvider_rpcplugin.sync"
        assert await counter.loads("pyvider_rpcplugin.aio") == "pyvider_rpcplugin.aio"
        with pytest.raises(RemoteError, match="No module named"):
            await counter.loads("pyvider_rpcplugin.cli")


async def test_a_host_learns_what_a_frozen_plugin_died_of(frozen, anyio_backend_name):
    async with plugin_client([frozen, "plugin", anyio_backend_name]) as client:
        os.kill((await client.proxy(Counter).facts()).pid, signal.SIGSEGV)
        with anyio.fail_after(5):
            await client.exited.wait()
    assert client.exit is not None
    assert client.exit.status == -signal.SIGSEGV
    assert unpacked() == []


async def test_a_frozen_plugin_ends_with_the_process_that_started_it(frozen, anyio_backend_name):
    async with plugin_client([frozen, "plugin", anyio_backend_name]) as client:
        pid = (await client.proxy(Counter).facts()).pid
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        with anyio.fail_after(5):
            await client.exited.wait()
    assert await anyio.to_thread.run_sync(ended, pid)
    # There is nobody left who could do it.
    [folder] = unpacked()
    shutil.rmtree(folder)


async def test_a_frozen_plugin_that_hangs_is_killed_with_the_process_that_started_it(
    frozen, anyio_backend_name
):
    async with plugin_client(
        [frozen, "plugin", anyio_backend_name], grpc_grace_period=0.1
    ) as client:
        counter = client.proxy(Counter)
        pid = (await counter.facts()).pid
        with anyio.move_on_after(0.1):
            await counter.hangs()
    assert client.exit is not None
    assert client.exit.status == -signal.SIGKILL
    assert await anyio.to_thread.run_sync(ended, pid)
    [folder] = unpacked()
    shutil.rmtree(folder)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_frozen_plugin_ends_with_its_killed_host(frozen, loop):
    with run_host([sys.executable, str(PROGRAM)], loop, [frozen, "plugin", loop]) as host:
        answer = answers(host)
        host.kill()
    assert ended(answer["pid"], answer["facts"]["pid"])
    assert unpacked() == []
    # The next host of this user would remove it.
    [folder] = Path(tempfile.gettempdir()).iterdir()
    shutil.rmtree(folder)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_frozen_host_runs_a_plugin_of_the_same_file(frozen, loop):
    with run_host([frozen], loop, [frozen, "plugin", loop]) as host:
        answer = answers(host)
        assert answer["facts"]["loop"] == loop
        assert answer["asks"] == "ADA"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("own", [None, "/own"])
def test_the_plugins_of_a_frozen_host_do_not_take_its_libraries_for_theirs(
    frozen, loop, own, monkeypatch
):
    if own is not None:
        monkeypatch.setenv("LD_LIBRARY_PATH", own)
    plugin = [sys.executable, str(PROGRAM), "plugin", loop]
    with run_host([frozen], loop, plugin) as host:
        assert answers(host)["facts"]["library_path"] == own
