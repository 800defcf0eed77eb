"""A plugin that works: calls, on all pairs of loops, and its end in the middle of them."""

from __future__ import annotations

import os
import signal

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import PluginHost, RPCPluginClient, RPCPluginError, plugin_client
from pyvider_rpcplugin.rpc import ConnectionLost
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process


def kill(client: RPCPluginClient) -> None:
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_host_and_plugin_talk_on_every_pair_of_loops(loop: str, transport: str) -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo("--loop", loop, "--transport", transport)) as client:
            stub = client.stub(EchoStub)
            assert (await stub.Unary(EchoRequest(text="loop"))).text == loop
            assert len(await stub.ServerStream(EchoRequest(count=3))) == 3
            assert (await stub.ClientStream([EchoRequest()] * 4)).index == 4
            replies = await stub.Bidi([EchoRequest(text=t) for t in "ab"])
            assert [reply.text for reply in replies] == ["a", "b"]
            await client.ping()
            assert client.pid is not None
            assert client.negotiated_version == 1
        assert client.exit is not None
        assert client.exit.status == 0


async def test_what_a_plugin_prints_first_does_no_harm() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo("--print-first", "1|1|tcp|127.0.0.1:1|grpc")) as client:
            await client.ping()


async def test_a_client_starts_again_after_a_stop_and_its_stubs_live_on() -> None:
    client = plugin_client(echo())
    stub = client.stub(EchoStub)
    with pytest.raises(RPCPluginError, match="not running"):
        await stub.Unary(EchoRequest())
    pids: set[str] = set()
    with anyio.fail_after(20):
        for _ in range(2):
            assert client.grpc_channel is None
            assert await client.start() is client
            assert client.grpc_channel is not None
            with pytest.raises(RPCPluginError, match="running already"):
                await client.start()
            pids.add((await stub.Unary(EchoRequest(text="pid"))).text)
            await client.stop()
            await client.stop()
            assert client.exited.is_set()
    assert len(pids) == 2


async def test_env_and_cwd_reach_the_plugin(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "outer")
    with anyio.fail_after(20):
        client = plugin_client(
            echo(), config={"env": {"A": "1", "B": "1"}}, env={"B": "2"}, cwd=tmp_path
        )
        async with client:
            stub = client.stub(EchoStub)
            values = [
                (await stub.Unary(EchoRequest(text=f"env:{name}"))).text
                for name in ("A", "B", "OUTER")
            ]
        assert values == ["1", "2", "outer"]
        async with plugin_client(echo(), inherit_env=["TMPDIR"]) as client:
            stub = client.stub(EchoStub)
            assert (await stub.Unary(EchoRequest(text="env:OUTER"))).text == ""


async def test_death_in_the_middle_of_a_unary_call() -> None:
    with anyio.fail_after(5):
        async with plugin_client(echo()) as client:
            with pytest.raises(ConnectionLost) as caught:
                await client.stub(EchoStub).Unary(EchoRequest(text="kill"))
            assert caught.value.status is Status.UNAVAILABLE
            assert caught.value.exit_status == -9
            assert caught.value.stderr_tail[-1] == "last words"
            # Whoever is told of the end by a call need not wait to learn more of it.
            assert client.exit is not None
            assert client.exit.status == -9
            await client.exited.wait()
            assert client.exit.status == -9
            # Later calls fail at once, and say why.
            with pytest.raises(ConnectionLost) as caught:
                await client.stub(EchoStub).Unary(EchoRequest())
            assert caught.value.exit_status == -9


async def test_death_in_the_middle_of_a_stream() -> None:
    with anyio.fail_after(5):
        async with plugin_client(echo()) as client:
            stub = client.stub(EchoStub)
            with pytest.raises(ConnectionLost) as caught:
                async with stub.ServerStream.open() as stream:
                    await stream.send_message(EchoRequest(text="hang", count=1), end=True)
                    assert await stream.recv_message() is not None
                    kill(client)
                    await stream.recv_message()
            assert caught.value.status is Status.UNAVAILABLE
            assert caught.value.exit_status == -9


async def test_death_in_the_middle_of_a_hundred_calls() -> None:
    failures: list[ConnectionLost] = []
    with anyio.fail_after(5):
        async with plugin_client(echo()) as client:
            stub = client.stub(EchoStub)

            async def call() -> None:
                with pytest.raises(ConnectionLost) as caught:
                    await stub.Unary(EchoRequest(text="hang"))
                failures.append(caught.value)

            async with anyio.create_task_group() as tg:
                for _ in range(100):
                    tg.start_soon(call)
                await stub.Unary(EchoRequest())
                kill(client)
    assert len(failures) == 100
    assert {(error.status, error.exit_status) for error in failures} == {(Status.UNAVAILABLE, -9)}


async def test_a_handler_that_leaves_the_interpreter() -> None:
    with anyio.fail_after(5):
        async with plugin_client(echo()) as client:
            with pytest.raises(GRPCError) as caught:
                await client.stub(EchoStub).Unary(EchoRequest(text="leave:5"))
            assert caught.value.status is Status.UNAVAILABLE
            await client.exited.wait()
            assert client.exit is not None
            assert client.exit.status == 5


async def test_death_of_a_plugin_with_a_socket_of_its_own_choice(tmp_path) -> None:
    path = tmp_path / "s"
    with anyio.fail_after(5):
        async with plugin_client(echo("--transport", "unix", "--path", str(path))) as client:
            assert path.is_socket()
            kill(client)
            await client.exited.wait()
    assert not path.exists()


async def test_death_while_a_child_of_the_plugin_holds_the_connection() -> None:
    with anyio.fail_after(5):
        async with plugin_client(echo()) as client:
            with pytest.raises(ConnectionLost) as caught:
                await client.stub(EchoStub).Unary(EchoRequest(text="fork:7"))
            assert caught.value.exit_status == 7


async def test_a_crash_is_quiet_for_who_does_not_call_and_the_client_starts_again() -> None:
    client = plugin_client(echo())
    with anyio.fail_after(10):
        async with client:
            kill(client)
            await client.exited.wait()
        async with client:
            await client.ping()


async def test_what_the_host_raises_comes_out_bare_and_the_plugin_ends() -> None:
    with anyio.fail_after(10):
        with pytest.raises(ZeroDivisionError):
            async with plugin_client(echo()) as client:
                raise ZeroDivisionError
    assert client.exit is not None
    assert client.exit.status == 0


async def test_a_call_is_cancelled_without_harm_to_others() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            stub = client.stub(EchoStub)
            with anyio.move_on_after(0.05) as scope:
                await stub.Unary(EchoRequest(text="hang"))
            assert scope.cancelled_caught
            assert (await stub.Unary(EchoRequest(text="x"))).text == "x"


async def test_cancelled_during_stop_the_plugin_still_ends() -> None:
    client = plugin_client(echo())
    with anyio.fail_after(10):
        await client.start()
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.stop)
            await anyio.lowlevel.checkpoint()
            tg.cancel_scope.cancel()
        assert client.exited.is_set()
        assert client.grpc_channel is None


async def test_a_plugin_that_will_not_end_is_ended() -> None:
    # It hangs in a call, ignores SIGTERM, and its own grace is longer than the host's.
    with anyio.fail_after(10):
        client = plugin_client(
            echo("--ignore-term"), env={"PLUGIN_GRPC_GRACE_PERIOD": "60"}, grpc_grace_period=0
        )
        async with client:
            stub = client.stub(EchoStub)
            async with anyio.create_task_group() as tg:

                async def hang() -> None:
                    with pytest.raises(ConnectionLost) as caught:
                        await stub.Unary(EchoRequest(text="hang"))
                    assert caught.value.status is Status.UNAVAILABLE

                tg.start_soon(hang)
                await stub.Unary(EchoRequest())
                await client.stop()
    assert client.exit is not None
    assert client.exit.status == -9


async def test_eight_mebibytes_of_output_while_calls_go_on() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo()) as client:
            stub = client.stub(EchoStub)

            async with anyio.create_task_group() as tg:

                async def shout() -> None:
                    await stub.Unary(EchoRequest(text=f"shout:{8 * 2**20}"))
                    tg.cancel_scope.cancel()

                async def call() -> None:
                    while True:
                        await stub.Unary(EchoRequest(text="x"))

                tg.start_soon(shout)
                tg.start_soon(call)
            await client.ping()


async def test_twenty_plugins_of_one_host_at_once() -> None:
    with anyio.fail_after(25):
        async with PluginHost() as host:
            async with anyio.create_task_group() as tg:
                for _ in range(20):
                    tg.start_soon(host.start, echo())
            assert len(host.clients) == 20
            pids = {
                (await client.stub(EchoStub).Unary(EchoRequest(text="pid"))).text
                for client in host.clients
            }
            assert len(pids) == 20
        assert host.clients == ()


async def test_a_stub_left_by_break_inside_a_deadline_does_no_harm() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            stub = client.stub(EchoStub)

            async def numbers():
                async with stub.ServerStream.open() as stream:
                    await stream.send_message(EchoRequest(count=1000), end=True)
                    async for reply in stream:
                        yield reply.index

            generator = numbers()
            with anyio.fail_after(5):
                async for number in generator:
                    if number == 3:
                        break
            assert (await stub.Unary(EchoRequest(text="x"))).text == "x"
            await generator.aclose()


async def test_two_open_streams_may_be_closed_oldest_first() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            stub = client.stub(EchoStub)
            first, second = stub.Bidi.open(), stub.Bidi.open()
            one = await first.__aenter__()
            two = await second.__aenter__()
            for stream, text in ((one, "one"), (two, "two")):
                await stream.send_message(EchoRequest(text=text))
                reply = await stream.recv_message()
                assert reply is not None
                assert reply.text == text
            await one.end()
            await first.__aexit__(None, None, None)
            await two.send_message(EchoRequest(text="still"), end=True)
            last = await two.recv_message()
            assert last is not None
            assert last.text == "still"
            await second.__aexit__(None, None, None)
