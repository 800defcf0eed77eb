"""The how-to pages: each program on them is saved and run as the page says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin import ConnectionLost, configure, plugin_client
from pyvider_rpcplugin.codegen import generate
from pyvider_rpcplugin.config import setting_names
from pyvider_rpcplugin.testing import CertificateAuthority
from tests.pages import DOCS, ROOT, shown

pytestmark = [pytest.mark.process, pytest.mark.slow]

PROTOBUF = ROOT / "examples" / "protobuf"


def save(page: str, folder: Path, *names: str) -> None:
    """Put programs of a page into a folder."""
    for name in names:
        (folder / name).write_text(shown(page, name))


def run(folder: Path, *command: str, status: int = 0, env: dict[str, str] | None = None) -> str:
    """Run Python there; return what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **(env or {})},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def consoles(page: str) -> list[tuple[str, str]]:
    """Commands that a page shows with what they print."""
    found = []
    for console in re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        for part in console.removeprefix("$ ").split("\n$ "):
            command, _, printed = part.partition("\n")
            found.append((command, printed.rstrip() + "\n"))
    return found


def run_line(line: str, folder: Path) -> str:
    """Run a command of a page."""
    programs = {"python": [], "pyvider-rpcplugin": ["-m", "pyvider_rpcplugin"]}
    first, *words = shlex.split(line)
    words = [sys.executable if word == "python" else word for word in words]
    return run(folder, *programs[first], *words)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what grpcio-tools makes of the greeter's file."""
    pytest.importorskip("grpc_tools", reason="protoc comes with grpcio-tools")
    folder = tmp_path_factory.mktemp("generated")
    generate(PROTOBUF, folder, kinds=["grpclib", "grpcio"])
    return folder


# Protocol Buffers


@pytest.mark.parametrize("name", ["greeter_plugin.py", "host.py"])
def test_the_page_on_protocol_buffers_shows_the_example(name: str) -> None:
    assert shown("how-to-protobuf.md", name) == (PROTOBUF / name).read_text()


@pytest.mark.thorough
def test_the_page_on_protocol_buffers_from_the_file_to_the_call(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="protoc comes with grpcio-tools")
    pytest.importorskip("typer")
    (tmp_path / "greeter.proto").write_text((PROTOBUF / "greeter.proto").read_text())
    page = "how-to-protobuf.md"
    save(page, tmp_path, "generate.py", "greeter_plugin.py", "host.py")
    made = run(tmp_path, "generate.py").split()
    assert made == ["greeter_grpc.py", "greeter_pb2.py", "greeter_pb2.pyi"]
    assert run_line("pyvider-rpcplugin gen stubs .", tmp_path).split() == made
    assert run(tmp_path, "host.py").startswith("on asyncio:\nHello, Ada!\n3\n")
    [(command, printed)] = consoles(page)
    assert run_line(command, tmp_path) == printed


# Coming from others


@pytest.mark.thorough
def test_the_page_on_grpcio(tmp_path: Path, generated: Path) -> None:
    page = "how-to-from-grpcio.md"
    save(page, tmp_path, "servicer.py", "greeter_plugin.py", "host.py")
    [printed] = re.findall(r"```text\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    path = f"{ROOT}{os.pathsep}{generated}"
    assert run(tmp_path, "host.py", env={"PYTHONPATH": path}) == printed


@pytest.mark.thorough
def test_the_page_on_version_0_5(tmp_path: Path, generated: Path) -> None:
    save("how-to-from-0.5.md", tmp_path, "greeter_plugin.py", "host.py")
    path = f"{ROOT}{os.pathsep}{generated}"
    assert run(tmp_path, "host.py", env={"PYTHONPATH": path}) == "Hello, Ada!\n"


def test_what_the_page_on_version_0_5_says_of_settings_holds() -> None:
    page = (DOCS / "how-to-from-0.5.md").read_text()
    named = {
        name for line in page.splitlines() if line.startswith("| `configure(")
        for name in re.findall(r"`(?:configure\()?(\w+)[=`]", line.partition(" | ")[2])
    }  # fmt: skip
    assert named == {"magic_cookie_value", "protocol_versions", "server_transports",
                     "client_transports"}  # fmt: skip
    try:
        configure(magic_cookie_value="x", protocol_versions=[2], server_transports=["tcp"])
    finally:
        configure(magic_cookie_value=None, protocol_versions=None, server_transports=None)


# Programs in Go


@pytest.mark.parametrize("page", ["how-to-go-host.md", "how-to-go-plugin.md"])
def test_the_pages_on_go_show_the_example_as_it_is(page: str) -> None:
    kv = ROOT / "examples" / "kv"
    found = re.findall(
        r"<!-- (\S+) -->\n```(?:go|python)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL
    )
    assert {"how-to-go-host.md": ["go/kv/plugin.go"] * 2 + ["kv_plugin.py", "go/host/main.go"],
            "how-to-go-plugin.md": ["go/plugin/main.go", "host.py"]}[page] == [
        name for name, _ in found
    ]  # fmt: skip
    for name, code in found:
        assert code in (kv / name).read_text()


# A certificate authority of one's own


@pytest.mark.thorough
def test_the_page_on_an_authority_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    page = "how-to-mutual-tls.md"
    save(page, tmp_path, "words_plugin.py", "host.py")
    commands = consoles(page)
    assert len(commands) == 3
    for command, printed in commands:
        assert run_line(command, tmp_path) == printed
    assert run_line("pyvider-rpcplugin certs check tls/plugin.crt --days 30", tmp_path)


# Containers


def deployed() -> dict[str, str]:
    """The settings of the deployment."""
    text = (DOCS / "how-to-kubernetes.md").read_text()
    return dict(re.findall(r"{name: (PLUGIN_\w+), value: \"?([^\"}]+)\"?}", text))


def test_the_deployment_has_settings_that_there_are() -> None:
    names = {name.removeprefix("PLUGIN_").lower() for name in deployed()}
    assert len(names) == 8
    assert names <= setting_names()


@pytest.mark.thorough
def test_the_page_on_containers(tmp_path: Path) -> None:
    save("how-to-kubernetes.md", tmp_path, "server.py", "probe.py", "host.py")
    authority = CertificateAuthority()
    authority.write(tmp_path, "ca")
    authority.issue("localhost").write(tmp_path, "plugin")
    authority.issue("host").write(tmp_path, "host")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    env = {name: value.replace("/tls/", f"{tmp_path}/") for name, value in deployed().items()}
    env["PLUGIN_SERVER_PORT"] = port
    assert "refused" in run(tmp_path, "probe.py", status=1, env=env)
    with subprocess.Popen(
        [sys.executable, "server.py"], cwd=tmp_path, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    ) as server:  # fmt: skip
        try:
            env["PLUGIN_CLIENT_MAX_RETRIES"] = "100"  # The server may not be there yet.
            env["WORDS_ADDRESS"] = f"127.0.0.1:{port}"
            assert run(tmp_path, "host.py", env=env) == "6\n"
            assert run(tmp_path, "probe.py", env=env) == ""
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=50)
        finally:
            server.kill()
    assert (server.returncode, said) == (0, b"")


# Debugging


@pytest.mark.thorough
def test_the_page_on_debugging_shows_what_blocks(tmp_path: Path) -> None:
    (tmp_path / "words_plugin.py").write_text(BLOCKING)
    save("how-to-debugging.md", tmp_path, "logs.py")
    (tmp_path / "logs.py").write_text(
        (tmp_path / "logs.py")
        .read_text()
        .replace("basicConfig(", "basicConfig(stream=sys.stdout, ")
    )
    said = run(tmp_path, "logs.py")
    assert "printed" in said
    assert "DEBUG pyvider_rpcplugin.plugin.words_plugin: I am slow" in said
    assert re.search(r"WARNING pyvider_rpcplugin.plugin.words_plugin: Executing <Task", said)


BLOCKING = """
import logging, time
from pyvider_rpcplugin import plugin_server

class Words:
    async def slow(self) -> None:
        logging.debug("I am slow")
        print("printed")
        time.sleep(0.2)

if __name__ == "__main__":
    plugin_server(handler=Words()).run()
"""


class Words:
    async def slow(self) -> None: ...


@pytest.mark.thorough
async def test_the_stacks_of_a_plugin_that_hangs_are_in_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "words_plugin.py").write_text(BLOCKING.replace("0.2", "30"))
    hangs = anyio.Event()

    def listen(written: bytes) -> None:
        if b"I am slow" in written:
            hangs.set()

    async def call() -> None:
        with pytest.raises(ConnectionLost):
            await client.proxy(Words).slow()

    with anyio.fail_after(20):
        async with (
            plugin_client(
                [sys.executable, str(tmp_path / "words_plugin.py")],
                env={"PYTHONFAULTHANDLER": "1", "PLUGIN_LOG_LEVEL": "DEBUG"},
                stderr=listen,
            ) as client,
            anyio.create_task_group() as tg,
        ):
            tg.start_soon(call)
            await hangs.wait()
            assert client.pid is not None
            os.kill(client.pid, signal.SIGABRT)
            exit_ = await client.wait()
    assert exit_.status == -signal.SIGABRT
    assert 'words_plugin.py", line' in "\n".join(exit_.stderr_tail)
