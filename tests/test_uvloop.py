"""Host and plugin on uvloop, whose sockets, pipes, signals and child processes are libuv's."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import HandshakeError, plugin_client
from tests.broker.test_pairs import Callback, ask, inner_number, make
from tests.client.test_calls import kill
from tests.plugins import FOLDER, echo, talking
from tests.plugins.misc_plugin import ask as ask_misc
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.server.test_plugin_process import COOKIE, Started
from tests.stdio.test_output import Output

uvloop = pytest.importorskip("uvloop")

pytestmark = pytest.mark.process


@pytest.fixture(scope="module", autouse=True)
def _what_uvloop_opens_once_for_the_process() -> None:
    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"debug": True, "use_uvloop": True}


@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_calls_of_every_kind_go_both_ways_encrypted(transport: str) -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    data = bytes(3 << 20)
    with anyio.fail_after(15):
        async with plugin_client(echo("--loop", "uvloop", "--transport", transport)) as client:
            stub = client.stub(EchoStub)
            assert (await stub.Unary(EchoRequest(text="loop"))).text == "uvloop"
            assert (await stub.Unary(EchoRequest(text="peer"))).text  # a certificate's number
            assert (await stub.Unary(EchoRequest(data=data))).data == data
            replies = await stub.ServerStream(EchoRequest(count=1000))
            assert [reply.index for reply in replies] == list(range(1000))
            assert (await stub.ClientStream([EchoRequest()] * 1000)).index == 1000
            async with stub.Bidi.open() as stream:
                for word in ("a", "b"):
                    await stream.send_message(EchoRequest(text=word))
                    reply = await stream.recv_message()
                    assert reply is not None
                    assert reply.text == word
            with anyio.move_on_after(0.01) as scope:
                await stub.Unary(EchoRequest(text="hang"))
            assert scope.cancelled_caught
            with pytest.raises(GRPCError) as caught:
                await stub.Unary(EchoRequest(text="hang"), timeout=0.01)
            assert caught.value.status is Status.DEADLINE_EXCEEDED
            async with anyio.create_task_group() as tasks:
                for _ in range(64):
                    tasks.start_soon(stub.Unary, EchoRequest(data=data[:100_000]))
        assert client.exit is not None
        assert client.exit.status == 0


async def test_the_broker_serves_in_both_directions() -> None:
    with anyio.fail_after(15):
        async with make("--loop", "uvloop") as client:
            async with client.broker.serve(Callback()) as number:
                assert await ask(client, "call-back", number) == "host heard from the plugin"
            async with (
                inner_number(client, "inner") as number,
                client.broker.dial(number) as channel,
            ):
                assert (await EchoStub(channel).Unary(EchoRequest(text="x"))).text == "inner: x"


async def test_what_a_plugin_prints_arrives_while_it_runs() -> None:
    out, err = Output(), Output()
    with anyio.fail_after(15):
        async with plugin_client(talking("uvloop"), sync_stdout=out, sync_stderr=err) as client:
            await ask_misc(client.grpc_channel, "many-ways")
            await out.wait(b"one\ntwo\nthree\nfour\nfive\n")
            await ask_misc(client.grpc_channel, f"flood {1 << 20}")
            await ask_misc(client.grpc_channel, "complain it")
            await err.wait(b"it\n")
    assert len(out.data) == len(b"one\ntwo\nthree\nfour\nfive\n" + b"after serving\n") + (1 << 20)


async def test_a_plugins_death_ends_its_calls() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo("--loop", "uvloop")) as client:
            with pytest.raises(GRPCError, match="SIGKILL"):
                async with client.stub(EchoStub).Bidi.open() as stream:
                    await stream.send_message(EchoRequest(text="x"))
                    await stream.recv_message()
                    kill(client)
                    await stream.recv_message()
            await client.exited.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_plugin_well(number: signal.Signals) -> None:
    command = [sys.executable, str(FOLDER / "misc_plugin.py"), "uvloop"]
    with Started(command, PLUGIN_IGNORE_SIGINT="false") as plugin:
        plugin.process.send_signal(number)
        status, out, err = plugin.end()
    assert (status, out) == (0, "after\n")
    assert err.split("\n") == ["printed before serving, and not flushed", "served", ""]


def test_a_plugin_ends_with_its_host() -> None:
    host = f"""if True:
        import sys, os, anyio
        from pyvider_rpcplugin import plugin_client
        async def main():
            async with plugin_client({echo("--loop", "uvloop")!r}) as client:
                print(client.pid, flush=True)
                os.kill(os.getpid(), 9)
        anyio.run(main, backend_options={{"use_uvloop": True}})
    """
    # That nothing is left behind is seen to after every test.
    ran = subprocess.run([sys.executable, "-c", host], capture_output=True, check=False, timeout=50)
    assert ran.returncode == -signal.SIGKILL
    assert int(ran.stdout)
    [folder] = Path(tempfile.gettempdir()).glob("rpcplugin-host-*")  # the next host would do it
    shutil.rmtree(folder)


def test_without_a_standard_output_it_says_so() -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *echo("--loop", "uvloop")]
    env = os.environ | COOKIE
    ran = subprocess.run(closed, env=env, stderr=subprocess.PIPE, check=False, timeout=10)
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"the standard output is closed")


def without_uvloop(program: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the tests where uvloop cannot be imported."""
    code = "import runpy, sys; sys.modules['uvloop'] = None; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(FOLDER / program), *arguments]
    return subprocess.run(
        command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=50
    )


@pytest.mark.parametrize(
    ("program", "arguments"), [("misc_plugin.py", ["uvloop"]), ("mux_plugin.py", ["misc"])]
)
def test_a_plugin_without_uvloop_says_so(program: str, arguments: list[str]) -> None:
    ran = without_uvloop(program, *arguments, LOOP="uvloop")
    assert ran.returncode == 1
    first, hint = ran.stderr.splitlines()[-2:]
    assert first.startswith("use_uvloop needs uvloop, which cannot be imported: ")
    assert hint.startswith("Hint: pip install uvloop into the plugin's environment")
    assert "Traceback" not in ran.stderr


async def test_a_host_is_told_of_it_by_the_plugins_own_words() -> None:
    code = "from pyvider_rpcplugin import plugin_server; "
    code += "plugin_server(handler=object()).run('trio', use_uvloop=True)"
    with anyio.fail_after(5), pytest.raises(HandshakeError) as caught:
        await plugin_client([sys.executable, "-c", code]).start()
    error: Any = caught.value
    assert error.exit_status == 1
    assert "use_uvloop is for asyncio, and the backend is 'trio'" in str(error)
