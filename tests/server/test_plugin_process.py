"""A plugin's process as any host sees it: its line, its signals, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from grpclib.const import Cardinality

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.services import request_shutdown
from pyvider_rpcplugin.services._messages import Empty
from pyvider_rpcplugin.services._stdio_messages import StdioData
from tests.plugins import FOLDER, echo
from tests.plugins.misc_plugin import ask
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

# A host that does not ask for TLS. A plugin that would like to use it says so in a warning, which is
# not what these tests are about.
COOKIE = {"PLUGIN_MAGIC_COOKIE": "rpcplugin-default-cookie", "PLUGIN_AUTO_MTLS": "false"}
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def misc(loop: str = "asyncio") -> list[str]:
    return [sys.executable, str(FOLDER / "misc_plugin.py"), loop]


class Started:
    """A plugin that was started as a host without any of our code does."""

    def __init__(self, command: list[str], **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            env=os.environ | COOKIE | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        self.line = self.stdout.readline().decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.stdout.close()
        self.stderr.close()

    @property
    def address(self) -> str:
        return self.line.split("|")[3]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=50)
        return self.process.returncode, out.decode(), err.decode()


@LOOPS
def test_the_line_is_all_that_it_prints_and_sigterm_ends_it_well(loop: str) -> None:
    with Started(misc(loop)) as plugin:
        assert re.fullmatch(r"1\|1\|unix\|/[^|]+\|grpc\|\n", plugin.line)
        assert Path(plugin.address).is_socket()
        plugin.process.send_signal(signal.SIGTERM)
        status, out, err = plugin.end()
        assert status == 0
        assert out == "after\n"
        assert err.split("\n") == ["printed before serving, and not flushed", "served", ""]
        assert not Path(plugin.address).exists()


@LOOPS
def test_sigint_is_left_to_the_host(loop: str) -> None:
    with Started(misc(loop)) as plugin:
        plugin.process.send_signal(signal.SIGINT)

        async def still_serves() -> None:
            async with plugin_client(address=plugin.address) as client:
                await client.ping()
                # The handler does nothing; a child does not inherit that.
                assert "default_int_handler" in await ask(client.grpc_channel, "sigint-of-child")

        anyio.run(still_serves)
        plugin.process.terminate()
        assert plugin.end()[0] == 0


@LOOPS
def test_sigint_ends_it_well_where_that_is_asked_for(loop: str) -> None:
    with Started(misc(loop), PLUGIN_IGNORE_SIGINT="false") as plugin:
        plugin.process.send_signal(signal.SIGINT)
        status, out, err = plugin.end()
        assert (status, out) == (0, "after\n")
        assert err.split("\n") == ["printed before serving, and not flushed", "served", ""]
        assert not Path(plugin.address).exists()


@LOOPS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_calls_that_run_may_finish_after_a_signal(loop: str, number: signal.Signals) -> None:
    with Started(
        echo("--loop", loop), PLUGIN_IGNORE_SIGINT="false", PLUGIN_GRPC_GRACE_PERIOD="60"
    ) as plugin:

        async def finish() -> None:
            async with plugin_client(address=plugin.address) as client:
                stub = client.stub(EchoStub)
                async with stub.Bidi.open() as stream:
                    for text in ("before", "after"):
                        await stream.send_message(EchoRequest(text=text))
                        reply = await stream.recv_message()
                        assert reply is not None
                        assert reply.text == text
                        plugin.process.send_signal(number)
                    await stream.end()

        anyio.run(finish)
        status, _, err = plugin.end()
        assert (status, err) == (0, "")


@LOOPS
def test_the_controllers_shutdown_ends_it(loop: str) -> None:
    with Started(echo("--loop", loop)) as plugin:

        async def shut_down() -> None:
            async with plugin_client(address=plugin.address) as client:
                await request_shutdown(client.grpc_channel)

        anyio.run(shut_down)
        status, _, err = plugin.end()
        assert (status, err) == (0, "")


@LOOPS
@pytest.mark.parametrize("text", ["flood", "chatter"])
def test_the_shutdown_is_answered_whatever_is_printed(loop: str, text: str) -> None:
    command = [sys.executable, str(FOLDER / "echo_program.py"), loop]
    with Started(command) as plugin:

        async def shut_down() -> None:
            with anyio.fail_after(5):
                async with plugin_client(address=plugin.address) as client:
                    channel: Any = client.grpc_channel
                    async with channel.request(
                        "/plugin.GRPCStdio/StreamStdio", Cardinality.UNARY_STREAM, Empty, StdioData
                    ) as stream:
                        await stream.send_message(Empty(), end=True)
                        await client.stub(EchoStub).Unary(EchoRequest(text=text))
                        # Nobody reads the stream.
                        await request_shutdown(channel)
                        await stream.cancel()

        anyio.run(shut_down)
        assert plugin.end()[0] == 0


@LOOPS
def test_it_ends_with_whoever_read_its_line(loop: str) -> None:
    with Started(echo("--loop", loop)) as plugin:
        plugin.stdout.close()
        assert plugin.process.wait(timeout=50) == 0
        assert not Path(plugin.address).exists()


def test_it_ends_when_a_file_appears(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    with Started(echo(), PLUGIN_SHUTDOWN_FILE_PATH=str(file)) as plugin:
        file.touch()
        assert plugin.end()[0] == 0
    assert not file.exists()


def test_what_the_host_says_in_the_environment_counts(tmp_path: Path) -> None:
    with Started(
        echo("--transport", "tcp"),
        PLUGIN_PROTOCOL_VERSIONS="3,1,x",
        PLUGIN_MIN_PORT="23456",
        PLUGIN_MAX_PORT="23556",
        PLUGIN_MULTIPLEX_GRPC="true",
    ) as plugin:
        found = re.fullmatch(r"1\|1\|tcp\|127\.0\.0\.1:(\d+)\|grpc\|\|true\n", plugin.line)
        assert found is not None
        assert 23456 <= int(found[1]) <= 23556
        plugin.process.terminate()
        assert plugin.end()[0] == 0
    with Started(echo(), PLUGIN_MULTIPLEX_GRPC="maybe") as plugin:
        assert plugin.line.endswith("|grpc||false\n")
        plugin.process.terminate()
        assert plugin.end()[0] == 0
    with Started(echo(), PLUGIN_UNIX_SOCKET_DIR=str(tmp_path)) as plugin:
        assert Path(plugin.address).parent == tmp_path


def test_a_host_that_is_gone_before_the_line_is_an_error_without_a_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        echo(),
        env=os.environ | COOKIE,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=50,
        check=False,
    )
    os.close(writing)
    assert result.returncode == 1
    assert result.stderr == b"the handshake line could not be written: the host has gone\n"


def test_without_a_standard_output_it_says_so() -> None:
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *echo()],
        env=os.environ | COOKIE,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=50,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(b"the standard output is closed")


def test_a_standalone_server_drains_at_ctrl_c_and_prints_nothing() -> None:
    process = subprocess.Popen(
        echo("--standalone", "--path", "s"),
        cwd=os.environ["TMPDIR"],
        env=os.environ | {"PLUGIN_AUTO_MTLS": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    path = Path(os.environ["TMPDIR"], "s")
    with process:
        while not path.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err) == (0, b"", b"")


@pytest.mark.parametrize("auto_mtls", [True, False])
async def test_a_plugin_does_not_load_what_it_does_not_use(auto_mtls: bool) -> None:
    with anyio.fail_after(10):
        async with plugin_client(
            misc(), auto_mtls=auto_mtls, env={"PLUGIN_AUTO_MTLS": str(auto_mtls)}
        ) as client:
            loaded = (await ask(client.grpc_channel, "modules")).split()
    # With TLS, its host has made its certificate.
    assert "cryptography" not in loaded
    assert "pyvider_rpcplugin.server" in loaded
    roots = {".".join(name.split(".")[:2]) for name in loaded} | {n.split(".")[0] for n in loaded}
    unwanted = {
        "_hashlib",
        "google.protobuf",
        "cryptography.x509",
        "trio",
        "grpclib.client",
        "grpclib.server",
    }
    assert not roots & unwanted
    own = {name.removeprefix("pyvider_rpcplugin.") for name in loaded}
    assert not own & {
        "client",
        "process",
        "handshake._environment",
        "handshake._reader",
        "logs._parse",
        "rpc._channel",
        "transport.tcp",
    }
    assert ("crypto._source" in own) is auto_mtls
