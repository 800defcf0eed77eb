"""The server as a whole: what it serves, and how it stops."""

from __future__ import annotations

import math
from typing import Any

import anyio
import h2.errors
import h2.events
import pytest
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc import Channel, ConnectionLost, RPCOptions, Server, open_channel
from pyvider_rpcplugin.transport import MemoryTransport
from pyvider_rpcplugin.transport.memory import MemoryStream
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, linked, message, request, scripted_client

# An hour passes at once; only without sockets, for the kernel's time cannot be skipped.
virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}), id="virtual")],
)


def test_services_are_named() -> None:
    server = Server([Echo()])
    assert server.services == ("testing.echo.Echo",)
    assert "/testing.echo.Echo/Unary" in server.methods


def test_a_method_is_served_once() -> None:
    server = Server([Echo()])
    with pytest.raises(ProtocolError, match="already"):
        server.add_service(Echo())


def test_what_has_no_methods_cannot_be_served() -> None:
    with pytest.raises(ProtocolError, match="__mapping__"):
        Server([object()])  # type: ignore[list-item]


class Held:
    """A unary handler that runs until it is let go."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.started = anyio.Event()
        self.release = anyio.Event()
        self.cancelled = False
        self._stubborn = stubborn

    async def __call__(self, stream: Any) -> None:
        await stream.recv_message()
        self.started.set()
        try:
            with anyio.CancelScope(shield=self._stubborn):
                await self.release.wait()
        except BaseException:
            self.cancelled = True
            raise
        await stream.send_message(EchoReply(text="done"))


async def test_calls_that_run_when_the_server_stops_may_finish_and_new_ones_are_refused() -> None:
    held = Held()
    async with linked(Echo(Unary=held)) as ours:
        results: list[Any] = []

        async def call() -> None:
            results.append((await ours.stub.Unary(EchoRequest())).text)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await held.started.wait()
                tasks.start_soon(ours.server.stop, 100)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(GRPCError) as caught:
                    await ours.stub.Unary(EchoRequest(), timeout=0.2)
                assert caught.value.status in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}
                held.release.set()
        assert results == ["done"]
        assert not held.cancelled


@pytest.mark.parametrize("grace", [0, -1, 0.01])
async def test_calls_that_do_not_finish_in_time_are_cancelled(grace: float) -> None:
    held = Held()
    async with linked(Echo(Unary=held)) as ours:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    with pytest.raises(GRPCError, match="has stopped") as caught:
                        await ours.stub.Unary(EchoRequest())
                    assert caught.value.status is Status.UNAVAILABLE

                tasks.start_soon(call)
                await held.started.wait()
                await ours.server.stop(grace)
                assert held.cancelled
        assert not ours.server._connections


async def test_who_is_cancelled_while_stopping_has_stopped() -> None:
    held = Held()
    async with linked(Echo(Unary=held)) as ours, anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(GRPCError):
                await ours.stub.Unary(EchoRequest())

        with anyio.fail_after(5):
            tasks.start_soon(call)
            await held.started.wait()
            with anyio.move_on_after(0.01):
                await ours.server.stop(1000)
            assert held.cancelled
            assert not ours.server._connections


@virtual_time
async def test_a_handler_that_ignores_cancellation_does_not_hold_up_the_stop() -> None:
    held = Held(stubborn=True)
    async with linked(Echo(Unary=held), limit=math.inf) as ours:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                with pytest.raises(GRPCError, match="has stopped") as caught:
                    await ours.stub.Unary(EchoRequest())
                assert caught.value.status is Status.UNAVAILABLE

            tasks.start_soon(call)
            await held.started.wait()
            before = anyio.current_time()
            await ours.server.stop(1)
            assert anyio.current_time() - before < 10
        held.release.set()


async def test_stopping_twice_at_once_is_stopping() -> None:
    async with linked() as ours:
        await ours.stub.Unary(EchoRequest())
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ours.server.stop, 1)
                tasks.start_soon(ours.server.stop, 0)
        assert not ours.server._connections


async def test_a_server_that_was_stopped_serves_nobody() -> None:
    server = Server([Echo()])
    await server.stop(0)
    async with MemoryTransport().listen() as listener:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                await tasks.start(server.serve, listener)
    ours, theirs = MemoryStream.pair()
    with anyio.fail_after(5):
        await server.serve_stream(ours)
        with pytest.raises(anyio.EndOfStream):
            await theirs.receive()


async def test_a_connection_that_is_accepted_while_stopping_is_closed() -> None:
    server = Server([Echo()])
    transport = MemoryTransport()
    async with transport.listen() as listener:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                await tasks.start(server.serve, listener)
                await anyio.wait_all_tasks_blocked()
                streams = [await transport.connect() for _ in range(3)]
                await server.stop(100)
        for stream in streams:
            await stream.aclose()


async def test_one_server_serves_several_listeners() -> None:
    server = Server([Echo()])
    one, two = MemoryTransport(), MemoryTransport()
    async with one.listen() as first, two.listen() as second:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                await tasks.start(server.serve, first)
                await tasks.start(server.serve, second)
                for transport in (one, two):

                    async def connect(transport: MemoryTransport = transport) -> Any:
                        return await transport.connect()

                    async with open_channel(Channel(connect)) as channel:
                        async with request(channel, "Unary") as stream:
                            await stream.send_message(EchoRequest())
                            assert await stream.recv_message() is not None
                await server.stop(0)


async def test_a_listener_that_is_closed_ends_the_accepting_and_no_call() -> None:
    server = Server([Echo()])
    transport = MemoryTransport()
    async with anyio.create_task_group() as tasks:
        async with transport.listen() as listener:
            await tasks.start(server.serve, listener)

            async def connect() -> Any:
                return await transport.connect()

            channel = Channel(connect)
            await tasks.start(channel.run)
        with anyio.fail_after(5):
            async with request(channel, "Unary") as stream:
                await stream.send_message(EchoRequest())
                assert await stream.recv_message() is not None
        channel.close()


async def test_a_drained_connection_says_goodbye_before_it_is_closed() -> None:
    held = Held()
    async with scripted_client(Echo(Unary=held)) as (server, peer), anyio.create_task_group() as tg:
        stream_id = await peer.request(body=message())
        await held.started.wait()
        tg.start_soon(server.stop, 100)
        goodbye = await peer.until(h2.events.ConnectionTerminated)
        assert goodbye.error_code == h2.errors.ErrorCodes.NO_ERROR
        assert goodbye.last_stream_id == stream_id
        held.release.set()
        # h2 takes nothing more after GOAWAY; the octets tell.
        data = b""
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            while True:
                data += await peer.stream.receive()
        assert message("done") in data


@virtual_time
async def test_a_client_that_says_nothing_is_not_waited_for() -> None:
    server = Server([Echo()], options=RPCOptions(settings_timeout=30))
    ours, theirs = MemoryStream.pair()
    async with anyio.create_task_group() as tasks, theirs:
        tasks.start_soon(server.serve_stream, ours)
        with anyio.fail_after(60), pytest.raises(anyio.EndOfStream):
            while True:
                await theirs.receive()


async def test_a_client_that_speaks_no_http2_is_told() -> None:
    server = Server([Echo()])
    ours, theirs = MemoryStream.pair()
    async with anyio.create_task_group() as tasks, theirs:
        tasks.start_soon(server.serve_stream, ours)
        await theirs.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            while True:
                data += await theirs.receive()
        assert b"preface" in data


async def test_a_failure_of_one_connection_ends_no_other(caplog: Any) -> None:
    async with linked() as ours:
        await ours.stub.Unary(EchoRequest())

        async def broken(max_bytes: int = 65536) -> bytes:
            raise ZeroDivisionError

        one, two = MemoryStream.pair()
        one.receive = broken  # type: ignore[method-assign]
        with anyio.fail_after(5):
            await ours.server.serve_stream(one)
        await two.aclose()
        assert "rpc.connection.failed" in caplog.text
        await ours.check_nothing_is_left()


async def test_calls_end_when_their_server_is_cancelled() -> None:
    held = Held()
    transport = MemoryTransport()
    async with transport.listen() as listener, anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def serve(*, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
            with scope:
                await Server([Echo(Unary=held)]).serve(listener, task_status=task_status)

        await tasks.start(serve)

        async def connect() -> Any:
            return await transport.connect()

        async with open_channel(Channel(connect)) as channel:
            with anyio.fail_after(5), pytest.raises(ConnectionLost):
                async with request(channel, "Unary") as stream:
                    await stream.send_message(EchoRequest())
                    await held.started.wait()
                    scope.cancel()
                    await stream.recv_message()
            assert held.cancelled
