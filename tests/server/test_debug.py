"""A plugin that a person starts for debugging, and what attaches to it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import (
    ReattachConfig,
    RPCPluginError,
    TransportError,
    parse_reattach_providers,
    plugin_client,
    plugin_server,
)
from pyvider_rpcplugin.server._debug import DebugServe, from_arguments, others
from pyvider_rpcplugin.services import request_shutdown
from pyvider_rpcplugin.services._messages import ConnInfo, Empty
from tests.plugins import FOLDER, echo
from tests.plugins.misc_plugin import Misc, ask
from tests.plugins.versions_plugin import Numbered, which
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])
NAME = "registry.terraform.io/ns/name"


def versions(loop: str, *arguments: str) -> list[str]:
    return [sys.executable, str(FOLDER / "versions_plugin.py"), loop, "1,2", *arguments]


class Debugged:
    """A plugin started by hand, with the line that it printed."""

    def __init__(self, command: list[str], **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            env=os.environ | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()

    def record(self) -> ReattachConfig:
        return ReattachConfig.from_json(self.line)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=50)
        return self.process.returncode, out, err


@pytest.mark.process
@LOOPS
def test_it_prints_the_record_that_hosts_in_go_know_and_serves_until_ctrl_c(loop: str) -> None:
    with Debugged(versions(loop, "--debug")) as plugin:
        wire = json.loads(plugin.line)
        assert list(wire) == ["Protocol", "ProtocolVersion", "Pid", "Test", "Addr"]
        record = plugin.record()
        assert record == ReattachConfig(
            network="unix",
            address=record.address,
            pid=plugin.process.pid,
            protocol_version=2,
            test=True,
        )

        async def attach() -> None:
            for _ in range(2):  # one host after the other
                async with plugin_client(address=record.address) as client:
                    await client.ping()
                    assert await which(client.grpc_channel, 2) == "2 (2, 2)"

        anyio.run(attach)
        status, out, err = plugin.end()
        assert (status, out) == (0, "")
        assert "until Ctrl-C" in err
        assert "Traceback" not in err
        assert not Path(record.address).exists()


class Host(EchoBase):
    """What the host serves."""

    async def Unary(self, stream):
        request = await stream.recv_message()
        await stream.send_message(EchoReply(text=f"heard {request.text}"))

    async def ServerStream(self, stream): ...
    async def ClientStream(self, stream): ...
    async def Bidi(self, stream): ...


@pytest.mark.process
@LOOPS
@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_hosts_attach_by_the_record_and_leave_it_running(loop: str, transport: str) -> None:
    command = [sys.executable, str(FOLDER / "broker_plugin.py"), "--loop", loop, "--debug"]
    with Debugged([*command, "--transport", transport]) as plugin:
        with anyio.fail_after(10):
            for _ in range(2):  # one host after the other
                async with plugin_client(reattach=plugin.line) as client:
                    assert (client.pid, client.negotiated_version) == (plugin.process.pid, 1)
                    await client.ping()
                    async with client.broker.serve(Host()) as number:
                        asked = EchoRequest(text="call-back", count=number)
                        reply = await client.stub(EchoStub).Unary(asked)
                        assert reply.text == "heard from the plugin"
                assert not client.exited.is_set()
        assert plugin.process.poll() is None
        assert plugin.end()[0] == 0


@pytest.mark.process
def test_with_a_name_it_prints_what_terraforms_variable_takes(tmp_path: Path) -> None:
    socket = tmp_path / "debug.sock"
    command = versions("asyncio", f"--debug={NAME}", "own", "--socket", str(socket))
    with Debugged(command) as plugin:
        [(name, record)] = parse_reattach_providers(plugin.line).items()
        assert (name, record.address, record.test) == (NAME, str(socket), True)
        _, _, err = plugin.end(signal.SIGTERM)
        # As a shell takes it.
        assert f"export TF_REATTACH_PROVIDERS='{plugin.line.strip()}'" in err
    assert not socket.exists()


@pytest.mark.process
def test_who_debugs_says_which_version_is_served() -> None:
    with Debugged(versions("trio", "--debug"), PLUGIN_PROTOCOL_VERSIONS="1") as plugin:
        assert plugin.record().protocol_version == 1
        plugin.end()


@pytest.mark.process
@LOOPS
def test_what_it_prints_stays_in_its_terminal(loop: str) -> None:
    with Debugged(echo("--loop", loop, "--print-first", ""), PLUGIN_LOG_LEVEL="DEBUG") as by_hand:
        assert by_hand.line == ""  # as ever: it is no program to be run by hand
        assert by_hand.end()[0] == 1

    command = [sys.executable, str(FOLDER / "echo_program.py"), loop, "--debug"]
    with Debugged(command) as plugin:

        async def attach() -> None:
            async with plugin_client(address=plugin.record().address) as client:
                stub = client.stub(EchoStub)
                assert (await stub.Unary(EchoRequest(text="print"))).text == "print"

        anyio.run(attach)
        status, out, err = plugin.end()
        assert (status, out) == (0, "printed\n")
        # For people, and not for a host's log.
        assert "WARNING echo: logged\n" in err


@pytest.mark.process
def test_a_program_of_its_own_arguments_asks_for_it_itself() -> None:
    program = [sys.executable, str(FOLDER / "echo_program.py"), "asyncio"]
    with Debugged([*program, "--attach"]) as plugin:
        assert plugin.record().test
        assert plugin.end()[0] == 0
    with Debugged([*program, "--never", "--debug"]) as refused:
        assert refused.line == ""
        assert "no host started it" in refused.end()[2]


@pytest.mark.process
async def test_under_a_host_the_argument_is_the_programs_own() -> None:
    command = [sys.executable, str(FOLDER / "echo_program.py"), "asyncio", "--debug"]
    with anyio.fail_after(5):
        async with plugin_client(command) as client:
            await client.ping()


@pytest.mark.process
def test_a_socket_without_a_path_is_a_short_note() -> None:
    with Debugged(versions("asyncio", "--debug", "--socket")) as plugin:
        status, _, err = plugin.end()
    assert status == 1
    assert err.startswith("--socket needs the path of a socket\n")


@pytest.mark.net
async def test_a_program_serves_for_debugging_and_gives_the_record() -> None:
    server = plugin_server(versions={3: Numbered(3)}, transport="tcp")
    with pytest.raises(TransportError, match="no address"):
        server.reattach_config()
    with anyio.fail_after(5):
        async with server.serve(debug=True) as address:
            record = server.reattach_config()
            assert record == ReattachConfig(
                network="tcp", address=address, pid=os.getpid(), protocol_version=3, test=True
            )
            async with plugin_client(address=address) as client:
                await client.ping()


@pytest.mark.net
async def test_a_task_group_serves_for_debugging() -> None:
    server = plugin_server(handler=Misc())
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            address = await tg.start(functools.partial(server.serve, debug=True))
            async with plugin_client(reattach=server.reattach_config()) as client:
                await client.ping()
            assert server.get_address() == address
            await server.stop()


@pytest.mark.parametrize(
    ("arguments", "asked", "own"),
    [
        ([], None, []),
        (["--debugger", "x"], None, ["--debugger", "x"]),
        (["a", "--debug", "-v"], DebugServe(), ["a", "-v"]),
        (["--debug=a/b"], DebugServe("a/b"), []),
        (["--debug="], DebugServe(), []),
        (["--debug", "--socket", "/s", "x"], DebugServe(None, "/s"), ["x"]),
        (["--socket=/s", "--debug=n"], DebugServe("n", "/s"), []),
        (["--socket", "/s"], None, ["--socket", "/s"]),
        (["--socket"], None, ["--socket"]),
    ],
)
def test_which_arguments_mean_what(
    arguments: list[str], asked: DebugServe | None, own: list[str]
) -> None:
    assert from_arguments(arguments) == asked
    assert others(arguments) == own


@pytest.mark.net
async def test_it_has_what_hosts_look_for_except_a_way_to_end_it() -> None:
    server = plugin_server(handler=Misc())
    with anyio.fail_after(5):
        async with server.serve(debug=True) as address:
            async with plugin_client(address=address) as client:
                channel: Any = client.grpc_channel
                with pytest.raises(GRPCError) as caught:
                    await request_shutdown(channel)
                assert caught.value.status is Status.UNIMPLEMENTED
                async with channel.request(
                    "/plugin.GRPCBroker/StartStream", Cardinality.STREAM_STREAM, ConnInfo, ConnInfo
                ) as stream:
                    await stream.send_message(ConnInfo(1, "unix", "/nowhere"))
                    assert await ask(channel, "") == "?"
                async with channel.request(
                    "/plugin.GRPCStdio/StreamStdio", Cardinality.UNARY_STREAM, Empty, ConnInfo
                ) as stream:
                    await stream.send_message(Empty(), end=True)
                    assert await ask(channel, "") == "?"
                    async with server.stop():
                        # What it prints is its own: there is nothing to hear, until the end.
                        assert await stream.recv_message() is None


@pytest.mark.net
async def test_a_standalone_server_gives_its_record_too() -> None:
    server = plugin_server(handler=Misc(), standalone=True, transport="tcp")
    with anyio.fail_after(5):
        async with server.serve() as address:
            assert server.reattach_config().address == address


@pytest.mark.process
async def test_the_record_of_a_plugin_with_a_host_is_the_hosts_to_give() -> None:
    command = [sys.executable, str(FOLDER / "echo_program.py"), "asyncio"]
    with anyio.fail_after(5):
        async with plugin_client(command) as client:
            said = (await client.stub(EchoStub).Unary(EchoRequest(text="record"))).text
    assert said.startswith(RPCPluginError.__name__)
    assert "client.reattach_config()" in said
