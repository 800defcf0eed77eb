"""More calls than a server takes on."""

from __future__ import annotations

import sys
import textwrap
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.rpc import Channel, RPCOptions, open_channel
from pyvider_rpcplugin.rpc._metadata import PUSHBACK_KEY
from pyvider_rpcplugin.services import ServingStatus, check_health
from pyvider_rpcplugin.transport import transport_for
from tests.plugins import FOLDER
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, request

from .support import field

pytestmark = pytest.mark.net


class Slow(Echo):
    """Holds the calls of `ClientStream` until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.most = 0
        self.enough = anyio.Event()
        self.go = anyio.Event()

    async def ClientStream(self, stream: Any) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 8:
            self.enough.set()
        try:
            await self.go.wait()
            await stream.send_message(EchoReply(text="done"))
        finally:
            self.running -= 1


async def test_calls_that_are_too_many_are_refused_at_once_and_the_others_complete() -> None:
    slow = Slow()
    results: list[Any] = []
    async with field(slow, options=RPCOptions(max_concurrent_calls=8)) as here:
        transport = transport_for("unix", here.address)
        async with open_channel(Channel(transport.connect)) as another:

            async def call(channel: Channel) -> None:
                async with request(channel, "ClientStream") as stream:
                    try:
                        await stream.send_message(EchoRequest(), end=True)
                        reply: Any = await stream.recv_message()
                        results.append(reply.text)
                        await stream.recv_trailing_metadata()
                    except GRPCError as error:
                        await stream_trailers(stream)
                        results.append((error, stream.trailing_metadata))

            async with anyio.create_task_group() as tasks:
                for channel in (here.channel, another) * 4:
                    tasks.start_soon(call, channel)
                await slow.enough.wait()
                for channel in (here.channel, another) * 50:
                    tasks.start_soon(call, channel)
                # All of them, while the first ones still run.
                while len(results) < 100:
                    await anyio.lowlevel.checkpoint()
                assert slow.running == slow.most == here.server.admission.calls == 8
                slow.go.set()
        refused = [result for result in results if result != "done"]
        assert len(refused) == 100
        assert len(results) == 108
        pauses = set()
        for error, trailers in refused:
            assert error.status is Status.UNAVAILABLE
            pauses.add(int(trailers[PUSHBACK_KEY]))
        assert all(100 <= pause < 400 for pause in pauses)
        # They do not come back together.
        assert len(pauses) > 10
        assert here.server.admission.calls == 0


async def stream_trailers(stream: Any) -> None:
    """What a refusal has brought, where nobody has asked for it yet."""
    if stream.trailing_metadata is None:
        await stream._take_trailers()


async def test_what_the_plugin_lives_by_is_taken_all_the_same() -> None:
    slow = Slow()
    async with field(slow, options=RPCOptions(max_concurrent_calls=8)) as here:
        here.server.admission.vital.add("/testing.echo.Echo/Unary")
        async with anyio.create_task_group() as tasks:
            stub = EchoStub(here.channel)
            for _ in range(8):
                tasks.start_soon(stub.ClientStream, [])
            await slow.enough.wait()
            await here.check_undisturbed()
            with pytest.raises(GRPCError, match="busy with 8 calls"):
                await stub.Bidi([EchoRequest()])
            slow.go.set()


async def test_calls_that_were_given_up_count_until_their_handlers_have_ended() -> None:
    begun = 0

    async def stubborn(stream: Any) -> None:
        nonlocal begun
        begun += 1
        with anyio.CancelScope(shield=True):
            await go.wait()

    go = anyio.Event()
    async with field(Echo(Bidi=stubborn), options=RPCOptions(max_concurrent_calls=2)) as here:
        async with here.speaker() as peer:
            numbers = [await peer.request("Bidi", end=False) for _ in range(2)]
            while begun < 2:
                await anyio.lowlevel.checkpoint()
            for number in numbers:
                peer.h2.reset_stream(number)
            await peer.send()
            while any(one._connection.h2.streams for one in here.server._connections):
                await anyio.lowlevel.checkpoint()
            assert here.server.admission.calls == 2
            with pytest.raises(GRPCError, match="busy"):
                await EchoStub(here.channel).Unary(EchoRequest())
        go.set()
        while here.server.admission.calls:
            await anyio.lowlevel.checkpoint()


BUSY = """
    import sys
    sys.path.insert(0, {root!r})
    import anyio
    from pyvider_rpcplugin import plugin_server
    from tests.rpc.support import Echo

    async def wait(stream):
        await stream.send_initial_metadata()
        await anyio.Event().wait()

    plugin_server(handler=Echo(Bidi=wait)).run()
"""


@pytest.mark.process
async def test_plugin_that_is_busy_refuses_calls_and_still_does_what_its_host_needs() -> None:
    script = textwrap.dedent(BUSY).format(root=str(FOLDER.parent.parent))
    client = plugin_client([sys.executable, "-c", script], env={"PLUGIN_MAX_CONCURRENT_CALLS": "3"})
    with anyio.fail_after(20):
        async with client, AsyncExitStack() as stack:
            channel = client.grpc_channel
            assert channel is not None
            for _ in range(3):
                stream = await stack.enter_async_context(request(channel, "Bidi"))
                await stream.send_request()
                await stream.recv_initial_metadata()
                stack.push_async_callback(stream.cancel)
            for _ in range(5):
                with pytest.raises(GRPCError, match="busy with 3 calls"):
                    await client.stub(EchoStub).Unary(EchoRequest())
            assert await check_health(channel) is ServingStatus.SERVING
        # It was asked to end, and has: nobody had to kill it.
        assert client.exit is not None
        assert client.exit.status == 0


@pytest.mark.interop
async def test_other_libraries_are_refused_in_words_that_they_know() -> None:
    grpc: Any = pytest.importorskip("grpc")

    def ask(address: str) -> Any:
        with grpc.insecure_channel(address) as channel:
            try:
                channel.unary_unary("/testing.echo.Echo/Unary")(b"", timeout=10)
            except grpc.RpcError as error:
                return error
        return None

    slow = Slow()
    async with field(slow, link="tcp", options=RPCOptions(max_concurrent_calls=8)) as here:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(EchoStub(here.channel).ClientStream, [])
            await slow.enough.wait()
            refused = await anyio.to_thread.run_sync(ask, here.address)
            assert refused.code() is grpc.StatusCode.UNAVAILABLE
            assert "busy with 8 calls" in refused.details()
            slow.go.set()
        assert await anyio.to_thread.run_sync(ask, here.address) is None
