"""The code on the pages of the documentation: all of it is run somewhere, the smaller pieces here."""

from __future__ import annotations

import hashlib
import logging
import ssl
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

import pyvider_rpcplugin
from pyvider_rpcplugin import plugin_client, plugin_protocol, plugin_server
from tests.pages import DOCS, ROOT, blocks, run_shown, shown
from tests.plugins import echo
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoRequest

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_block_of_code_has_a_name_and_a_test(page: Path) -> None:
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    of_page = [text for text in tests if f'"{page.name}"' in text]
    names = [name for name, _ in blocks(page)]
    assert None not in names
    assert [name for name in names if not any(f'"{name}"' in text for text in of_page)] == []
    assert len(set(names)) == len(names)


def run(page: str, name: str, **names: Any) -> dict[str, Any]:
    """Run a block of plain code."""
    exec(compile(shown(page, name), f"{page}: {name}", "exec"), names)
    return names


def test_a_context_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trustme.CA().cert_pem.write_to_path(tmp_path / "authority.pem")
    context = run("certificates.md", "context")["context"]
    assert isinstance(context, ssl.SSLContext)
    assert len(context.get_ca_certs()) == 1


def test_looking_at_a_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = trustme.CA().issue_cert("plugin.example")
    file = tmp_path / "cert.pem"
    made.cert_chain_pems[0].write_to_path(file)
    code = shown("certificates.md", "look").replace("/etc/plugin/cert.pem", str(file))
    exec(code, {})
    first, second = capsys.readouterr().out.splitlines()
    assert "plugin.example" in first
    assert len(second.split()[-1]) >= 64


@pytest.mark.process
async def test_where_the_log_of_a_plugin_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", settled.update)
    names = {"logging": logging, "plugin_client": started_as_echo, "sys": sys}
    await run_shown("logging.md", "records", **names)
    assert settled["level"] == "INFO"


@pytest.mark.process
async def test_where_prints_go() -> None:
    lines: list[bytes] = []
    names = {"plugin_client": started_as_echo, "sys": sys, "lines": lines}
    await run_shown("logging.md", "prints", **names)


def started_as_echo(command: list[str], **options: Any) -> Any:
    """The page's plugin is that of the quick start, which is not here."""
    assert command == [sys.executable, "greeter_plugin.py"]
    return plugin_client(echo(), **options)


def test_the_places_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    # The page sets it, and what was there before is put back.
    monkeypatch.setenv("PLUGIN_LOG_LEVEL", "INFO")
    try:
        client = run("settings.md", "places")["client"]
        assert client._settings.log_level == "DEBUG"
        assert client._settings.connection_timeout == 5
        assert client._settings.handshake_timeout == 20
        assert client._settings.client_max_retries == 0
    finally:
        pyvider_rpcplugin.configure(PLUGIN_CONNECTION_TIMEOUT=None)


def test_generating_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc_tools", reason="protoc comes with grpcio-tools")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "protos").mkdir()
    (tmp_path / "src").mkdir()
    proto = (ROOT / "tests" / "protos" / "echo.proto").read_text()
    (tmp_path / "protos" / "greeter.proto").write_text(proto)
    run("stubs.md", "generate")
    made = {path.name for path in (tmp_path / "src").iterdir()}
    assert {"greeter_pb2.py", "greeter_grpc.py", "greeter_pb2_grpc.py"} <= made


class GreeterModule:
    """What is shown as greeter_pb2_grpc, by the module that there is here."""

    add_GreeterServicer_to_server = staticmethod(  # noqa: N815 - as grpcio names it
        echo_pb2_grpc.add_EchoServicer_to_server
    )

    class GreeterStub:
        def __init__(self, channel: Any) -> None:
            self.Hello = echo_pb2_grpc.EchoStub(channel).Unary


@pytest.mark.process
async def test_a_stub_of_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "greeter_pb2_grpc", GreeterModule)
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            names = {"client": client, "HelloRequest": lambda name: EchoRequest(text=name)}
            seen: Any = await run_shown("stubs.md", "grpcio_host", **names)
    assert seen["reply"].text == "Ada"


def test_a_handler_of_grpcio() -> None:
    made: list[Any] = []

    class Server:
        def __init__(self, **options: Any) -> None:
            made.append(plugin_server(**options, standalone=True))

        def run(self) -> None:
            """What it does is another test's."""

    run(
        "stubs.md",
        "grpcio_plugin",
        plugin_server=Server,
        plugin_protocol=plugin_protocol,
        Greeter=echo_pb2_grpc.EchoServicer,
        greeter_pb2_grpc=GreeterModule,
    )
    assert [server.protocol is None for server in made] == [True, False]


@pytest.mark.process
async def test_a_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "my-plugin"
    program.write_bytes(b"test")
    program.chmod(0o755)
    client = run("trust.md", "checksum")["client"]
    # The digest on the page is that of "test": it gets as far as being no program.
    assert hashlib.sha256(b"test").hexdigest() in shown("trust.md", "checksum")
    with anyio.fail_after(10), pytest.raises(pyvider_rpcplugin.TransportError):
        await client.start()
    program.write_bytes(b"tested")
    with anyio.fail_after(10), pytest.raises(pyvider_rpcplugin.SecurityError):
        await client.start()


def test_limits() -> None:
    assert run("trust.md", "limits")["limits"].open_files == 256


def test_both_sides_of_a_plain_class() -> None:
    calls: list[str] = []

    class Side:
        def __init__(self, handler: Any = None) -> None:
            self.handler = handler

        def run(self) -> None:
            calls.append(type(self.handler).__name__)

        def proxy(self, interface: type) -> str:
            return interface.__name__

    class Greeter:
        """Only its name counts here."""

    names = run("typed.md", "both", plugin_server=Side, client=Side(), Greeter=Greeter)
    assert (calls, names["greeter"]) == (["Greeter"], "Greeter")
