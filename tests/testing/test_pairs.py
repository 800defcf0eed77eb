"""A client and a plugin of a test's own, connected in one process and in two."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import RPCPluginError, RPCPluginServer, context, plugin_server
from pyvider_rpcplugin.rpc.errors import DeadlineExceeded
from pyvider_rpcplugin.testing import (
    Scripted,
    assert_nothing_leaked,
    connected,
    launched,
    plugin_command,
)
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name} from {os.getpid()}."

    async def countdown(self, start: int) -> AsyncIterator[int]:
        for number in range(start, 0, -1):
            yield number

    async def wait(self) -> None:
        await anyio.Event().wait()


class Echo(EchoBase):
    async def Unary(self, stream):
        request = await stream.recv_message()
        if request.text.isdigit():
            async with context().broker.dial(int(request.text)) as channel:
                await stream.send_message(await EchoStub(channel).Unary(EchoRequest(text="back")))
            return
        await stream.send_message(EchoReply(text=request.text))

    async def ServerStream(self, stream): ...
    async def ClientStream(self, stream): ...
    async def Bidi(self, stream): ...


class EchoBack(Echo):
    async def Unary(self, stream):
        request = await stream.recv_message()
        await stream.send_message(EchoReply(text=f"{request.text} again"))


def server_of_its_own() -> RPCPluginServer:
    return plugin_server(handler=Greeter(), protocol_versions=[1, 5])


async def test_a_pair_in_memory_is_called_as_one_in_two_processes():
    async with connected(Greeter()) as client:
        greeter = client.proxy(Greeter)
        with anyio.fail_after(5):
            assert await greeter.hello("Ada") == f"Hello, Ada from {os.getpid()}."
            assert [n async for n in greeter.countdown(3)] == [3, 2, 1]
            await client.ping()
            assert set(await client.describe()) == {"Greeter"}
        assert client.pid is None


async def test_a_pair_in_memory_has_stubs_and_a_broker():
    async with connected(Echo()) as client:
        with anyio.fail_after(5):
            stub = client.stub(EchoStub)
            assert (await stub.Unary(EchoRequest(text="there"))).text == "there"
            async with client.broker.serve(EchoBack()) as number:
                assert (await stub.Unary(EchoRequest(text=str(number)))).text == "back again"
            with pytest.raises(GRPCError) as caught:
                await client.proxy(Greeter).wait()
    assert caught.value.status is Status.UNIMPLEMENTED


async def test_deadlines_count_in_memory_too():
    async with connected(Greeter()) as client:
        with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
            await client.proxy(Greeter, timeout=0.05).wait()


async def test_options_of_both_sides_are_taken():
    seen = []

    async def note(call):
        seen.append(call.method)

    versions = {1: Echo(), 4: Greeter()}
    async with connected(server={"versions": versions}, interceptors=[note]) as client:
        assert client.negotiated_version == 4
        await client.proxy(Greeter).hello("Ada")
    assert seen == ["/Greeter/hello"]


async def test_the_pairs_end_in_any_order_and_leave_nothing():
    with assert_nothing_leaked():
        one, two = connected(Greeter()), connected(Greeter())
        client = await one.__aenter__()
        other = await two.__aenter__()
        await one.__aexit__(None, None, None)
        assert client.grpc_channel is None
        await other.proxy(Greeter).hello("Ada")
        await two.__aexit__(None, None, None)


async def test_calls_that_run_end_with_the_pair():
    caught = []

    async def call(greeter: Greeter) -> None:
        try:
            await greeter.wait()
        except GRPCError as exc:
            caught.append(exc.status)

    async with anyio.create_task_group() as tg:
        async with connected(Greeter()) as client:
            tg.start_soon(call, client.proxy(Greeter))
            await anyio.wait_all_tasks_blocked()
    assert caught == [Status.CANCELLED]


async def test_a_client_is_stopped_and_started_again_and_its_proxies_stay_good():
    async with connected(Greeter()) as client:
        greeter = client.proxy(Greeter)
        await client.stop()
        with pytest.raises(RPCPluginError, match="not running"):
            await greeter.hello("Ada")
        await client.start()
        with anyio.fail_after(5):
            await greeter.hello("Ada")


async def test_the_client_notices_that_the_server_has_ended():
    told = []

    class Ending(Greeter):
        async def end(self) -> None:
            """Do as a plugin does that ends on its own account."""
            await stop()

    async with connected(Ending(), server={"on_shutdown": lambda: told.append("ends")}) as client:
        launch: Any = client._launch
        stop = launch.process.runner.terminate
        with anyio.fail_after(10), pytest.raises(GRPCError):
            await client.proxy(Ending).end()
        with anyio.fail_after(5):
            await client.exited.wait()
    assert told == ["ends"]


async def test_what_the_block_raises_is_raised_bare():
    with pytest.raises(KeyError, match="mine"):
        async with connected(Greeter()):
            raise KeyError("mine")


@pytest.mark.process
@pytest.mark.parametrize("made_by", [Greeter, server_of_its_own])
async def test_a_class_of_the_tests_own_is_served_in_a_process(made_by):
    with anyio.fail_after(20):
        async with launched(made_by, protocol_versions=[1, 5]) as client:
            assert await client.proxy(Greeter).hello("Ada") == f"Hello, Ada from {client.pid}."
            assert client.negotiated_version == (1 if made_by is Greeter else 5)


def test_what_another_process_cannot_find_is_refused():
    class Local:
        pass

    with pytest.raises(TypeError, match="Local cannot be found again"):
        plugin_command(Local)
    with pytest.raises(TypeError, match="an object of the class Greeter"):
        plugin_command(Greeter())
    assert Scripted.__name__ in plugin_command(Scripted)[-1]
