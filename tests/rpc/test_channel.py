"""The channel's life: connecting, losing the connection, connecting again, closing."""

from __future__ import annotations

from typing import Any

import anyio
import h2.events
import pytest
import trio.testing
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import PluginExit, TransportError
from pyvider_rpcplugin.rpc import (
    Channel,
    ConnectionLost,
    DeadlineExceeded,
    RPCOptions,
    open_channel,
)
from pyvider_rpcplugin.transport.memory import MemoryStream
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import (
    OK,
    Echo,
    ScriptedPeer,
    linked,
    message,
    request,
    scripted_server,
)

virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}), id="virtual")],
)


# By hand: h2 would say nothing more after its own.
GOAWAY = b"\0\0\x08\x07\0\0\0\0\0" + bytes(8)


class Endpoint:
    """Where a channel connects to: scripted servers, one after the other."""

    def __init__(self) -> None:
        self.attempts = 0
        self.error: Exception | None = None
        self.hang = False
        self.peers: list[ScriptedPeer] = []
        self.connected = anyio.Event()
        self.silent = False
        self.settings: dict[str, int] = {}

    async def connect(self) -> MemoryStream:
        self.attempts += 1
        await anyio.lowlevel.checkpoint()
        if self.hang:
            await anyio.Event().wait()
        if self.error is not None:
            raise self.error
        ours, theirs = MemoryStream.pair()
        peer = ScriptedPeer(theirs, client_side=False)
        self.peers.append(peer)
        if not self.silent:
            await peer.start(**self.settings)
        self.connected.set()
        self.connected = anyio.Event()
        return ours

    async def answer(self, number: int = -1, text: str = "answer") -> None:
        """Answer the next call on one of the connections."""
        peer = self.peers[number]
        event = await peer.until(h2.events.RequestReceived)
        assert event.stream_id is not None
        await peer.respond(event.stream_id, message(text), OK)

    async def close(self) -> None:
        for peer in self.peers:
            await peer.stream.aclose()


async def unary(channel: Channel, **options: Any) -> str:
    async with request(channel, "Unary", **options) as stream:
        await stream.send_message(EchoRequest())
        reply = await stream.recv_message()
        assert reply is not None
        text: str = reply.text
        return text


async def call_through(channel: Channel, endpoint: Endpoint, count: int = 1) -> None:
    """Check that a call works, wherever the channel has to connect for it."""
    connections = len(endpoint.peers)
    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            while len(endpoint.peers) < connections + count:
                await endpoint.connected.wait()
            await endpoint.answer()

        tasks.start_soon(serve)
        assert await unary(channel) == "answer"


# --- beginning -----------------------------------------------------------------------------------


async def test_a_channel_that_was_not_opened_says_so() -> None:
    channel = Channel(Endpoint().connect)
    assert "idle" in repr(channel)
    with pytest.raises(GRPCError, match="not open") as caught:
        await unary(channel)
    assert caught.value.status is Status.UNAVAILABLE


@pytest.mark.parametrize("error", [TransportError("nobody there"), ConnectionRefusedError()])
async def test_what_connecting_raises_reaches_who_opens_the_channel(error: Exception) -> None:
    endpoint = Endpoint()
    endpoint.error = error
    with anyio.fail_after(5), pytest.raises(type(error)) as caught:
        async with open_channel(Channel(endpoint.connect)):
            pytest.fail("it is open")
    assert caught.value is error


async def test_a_server_that_closes_at_once_is_an_error_that_says_why() -> None:
    async def connect() -> MemoryStream:
        ours, theirs = MemoryStream.pair()
        await theirs.aclose()
        return ours

    with anyio.fail_after(5), pytest.raises(TransportError, match="before HTTP/2"):
        async with open_channel(Channel(connect)):
            pytest.fail("it is open")


async def test_a_server_that_speaks_something_else_is_an_error_that_says_why() -> None:
    async def connect() -> MemoryStream:
        ours, theirs = MemoryStream.pair()
        await theirs.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return ours

    with anyio.fail_after(5), pytest.raises(TransportError, match="before HTTP/2"):
        async with open_channel(Channel(connect)):
            pytest.fail("it is open")


@virtual_time
async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    endpoint = Endpoint()
    endpoint.silent = True
    with pytest.raises(TransportError, match="no HTTP/2 within 30 s"):
        async with open_channel(Channel(endpoint.connect)):
            pytest.fail("it is open")
    await endpoint.close()


@pytest.mark.parametrize("where", ["connect", "settings"])
async def test_opening_may_be_cancelled(where: str) -> None:
    endpoint = Endpoint()
    endpoint.hang = where == "connect"
    endpoint.silent = where == "settings"
    with anyio.fail_after(5):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()

                tasks.start_soon(cancel)
                async with open_channel(Channel(endpoint.connect)):
                    pytest.fail("it is open")
    await endpoint.close()


@pytest.mark.parametrize("where", ["connect", "settings"])
async def test_closing_ends_an_attempt_to_connect(where: str) -> None:
    endpoint = Endpoint()
    endpoint.hang = where == "connect"
    endpoint.silent = where == "settings"
    channel = Channel(endpoint.connect)
    with anyio.fail_after(5):
        with pytest.raises(TransportError):
            async with anyio.create_task_group() as tasks:

                async def close() -> None:
                    await anyio.wait_all_tasks_blocked()
                    channel.close()

                tasks.start_soon(close)
                try:
                    await channel.run()
                except TransportError as error:
                    failure = error
                else:
                    pytest.fail("it ran")
            raise failure
    await endpoint.close()


# --- again -----------------------------------------------------------------------------------------


async def test_a_lost_connection_fails_its_calls_and_later_ones_connect_again() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        with anyio.fail_after(5):
            for _ in range(2):
                async with anyio.create_task_group() as tasks:

                    async def lose() -> None:
                        await endpoint.peers[-1].until(h2.events.RequestReceived)
                        await endpoint.peers[-1].stream.aclose()

                    tasks.start_soon(lose)
                    with pytest.raises(ConnectionLost) as caught:
                        await unary(channel)
                    assert caught.value.exit is None
                await call_through(channel, endpoint)
        assert endpoint.attempts == 3
        assert "connected" in repr(channel)
    await endpoint.close()


async def test_every_one_of_many_calls_learns_that_the_connection_is_lost() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        errors: list[ConnectionLost] = []

        async def call() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await unary(channel)
            errors.append(caught.value)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                await endpoint.peers[0].stream.aclose()
        assert len({id(error) for error in errors}) == 100
    await endpoint.close()


async def test_calls_wait_while_the_channel_connects_again_and_share_the_attempt() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        await endpoint.peers[0].stream.aclose()
        await anyio.wait_all_tasks_blocked()
        endpoint.error = ConnectionRefusedError()
        with anyio.fail_after(5):
            with pytest.raises(ConnectionLost, match="could not connect again"):
                await unary(channel)
            endpoint.error = None
            attempts = endpoint.attempts
            done: list[str] = []

            async def call() -> None:
                done.append(await unary(channel))

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(call)
                await endpoint.connected.wait()
                for _ in range(5):
                    await endpoint.answer()
            assert done == ["answer"] * 5
            assert endpoint.attempts == attempts + 1
    await endpoint.close()


async def test_a_failed_attempt_fails_all_who_waited_for_it_and_no_other() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        await endpoint.peers[0].stream.aclose()
        await anyio.wait_all_tasks_blocked()
        endpoint.error = TransportError("nobody there")

        async def call() -> None:
            with pytest.raises(ConnectionLost, match="nobody there"):
                await unary(channel)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(call)
        assert endpoint.attempts == 2
        endpoint.error = None
        with anyio.fail_after(5):
            await call_through(channel, endpoint)
    await endpoint.close()


async def test_waiting_for_a_new_connection_ends_at_the_deadline() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        await endpoint.peers[0].stream.aclose()
        await anyio.wait_all_tasks_blocked()
        endpoint.hang = True
        with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
            await unary(channel, timeout=0.02)
    await endpoint.close()


async def test_a_server_that_goes_away_is_left_when_its_calls_are_done() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                done: list[str] = []

                async def call() -> None:
                    done.append(await unary(channel))

                tasks.start_soon(call)
                old = endpoint.peers[0]
                event = await old.until(h2.events.RequestReceived)
                assert event.stream_id is not None
                # GOAWAY by hand: h2 would say nothing more after its own.
                await old.send(b"\0\0\x08\x07\0\0\0\0\0" + (1).to_bytes(4, "big") + bytes(4))
                await anyio.wait_all_tasks_blocked()
                await call_through(channel, endpoint)
                assert done == []
                assert len(channel._connections) == 2
                await old.respond(event.stream_id, message("old"), OK)
                await old.until_end()
            assert done == ["old"]
            await anyio.wait_all_tasks_blocked()
            assert len(channel._connections) == 1
    await endpoint.close()


async def test_an_idle_connection_that_its_server_leaves_is_closed() -> None:
    endpoint = Endpoint()
    lost: list[None] = []

    async def on_lost() -> None:
        lost.append(None)

    async with open_channel(Channel(endpoint.connect, on_lost=on_lost)) as channel:
        await endpoint.peers[0].send(GOAWAY)
        await endpoint.peers[0].until_end()
        with anyio.fail_after(5):
            await call_through(channel, endpoint)
        assert not lost
    await endpoint.close()


async def test_a_server_that_lets_nobody_in_is_not_asked_for_ever() -> None:
    endpoint = Endpoint()
    endpoint.settings = {"max_concurrent_streams": 0}

    async def call() -> None:
        with pytest.raises(ConnectionLost, match="3 connections in a row"):
            await unary(channel)

    async with open_channel(Channel(endpoint.connect)) as channel:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                for number in range(3):
                    await anyio.wait_all_tasks_blocked()
                    assert endpoint.attempts == number + 1
                    await endpoint.peers[-1].send(GOAWAY)
            endpoint.settings = {}
            await call_through(channel, endpoint)
    await endpoint.close()


async def test_a_server_that_allows_more_calls_wakes_who_waits_for_that() -> None:
    async with scripted_server(max_concurrent_streams=0) as (channel, peer):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                stub = EchoStub(channel)
                for _ in range(2):
                    tasks.start_soon(stub.Unary, EchoRequest())
                await anyio.wait_all_tasks_blocked()
                assert len(channel._pending) == 2
                peer.h2.update_settings({3: 10})
                await peer.send()
                for _ in range(2):
                    event = await peer.until(h2.events.RequestReceived)
                    assert event.stream_id is not None
                    await peer.respond(event.stream_id, message(), OK)


async def test_stream_identifiers_that_run_out_are_a_reason_to_connect_again() -> None:
    async with linked() as ours:
        assert await unary(ours.channel) == ""
        old = ours.channel._connection
        assert old is not None
        old.h2._next_stream_id = 2**31 + 1
        with anyio.fail_after(5):
            assert await unary(ours.channel) == ""
        assert ours.channel._connection is not old
        await anyio.wait_all_tasks_blocked()
        assert len(ours.channel._connections) == 1


# --- the end of the endpoint -----------------------------------------------------------------------


EXIT = PluginExit(3, ("last words",))


async def test_calls_of_an_endpoint_that_has_ended_say_how() -> None:
    endpoint = Endpoint()

    async def on_lost() -> PluginExit:
        return EXIT

    async with anyio.create_task_group() as tasks:
        channel = Channel(endpoint.connect, on_lost=on_lost)
        await tasks.start(channel.run)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as calls:

                async def call() -> None:
                    with pytest.raises(ConnectionLost, match="status 3") as caught:
                        await unary(channel)
                    assert caught.value.exit == EXIT
                    assert caught.value.stderr_tail == ("last words",)

                for _ in range(10):
                    calls.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                await endpoint.peers[0].stream.aclose()
            with pytest.raises(ConnectionLost, match="status 3"):
                await unary(channel)
        assert endpoint.attempts == 1
        channel.close()
    await endpoint.close()


async def test_an_endpoint_that_ends_while_nothing_can_connect_is_found_out() -> None:
    endpoint = Endpoint()
    ended: list[PluginExit | None] = [None]

    async def on_lost() -> PluginExit | None:
        return ended[0]

    async with anyio.create_task_group() as tasks:
        channel = Channel(endpoint.connect, on_lost=on_lost)
        await tasks.start(channel.run)
        await endpoint.peers[0].stream.aclose()
        await anyio.wait_all_tasks_blocked()
        endpoint.error = ConnectionRefusedError()
        ended[0] = EXIT
        with anyio.fail_after(5), pytest.raises(ConnectionLost, match="status 3"):
            await unary(channel)
        channel.close()
    await endpoint.close()


@pytest.mark.parametrize("waiting", [False, True], ids=["running", "waiting"])
async def test_an_endpoint_that_is_said_to_have_ended_fails_all_calls(waiting: bool) -> None:
    # The connection stays open: a child of the plugin may have inherited it.
    endpoint = Endpoint()
    async with anyio.create_task_group() as tasks:
        channel = Channel(endpoint.connect)
        await tasks.start(channel.run)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as calls:
                if waiting:
                    assert channel._connection is not None
                    channel._connection.h2.remote.max_concurrent_streams = 0

                async def call() -> None:
                    with pytest.raises(ConnectionLost) as caught:
                        await unary(channel)
                    assert caught.value.exit == EXIT

                calls.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                channel.endpoint_ended(EXIT)
                channel.endpoint_ended(PluginExit(0, ()))
            with pytest.raises(ConnectionLost, match="status 3"):
                await unary(channel)
    await endpoint.close()


# --- closing ---------------------------------------------------------------------------------------


async def test_closing_cancels_running_calls_and_refuses_later_ones() -> None:
    async def never(stream: Any) -> None:
        await anyio.Event().wait()

    async with linked(Echo(Unary=never)) as ours:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                with pytest.raises(GRPCError) as caught:
                    await unary(ours.channel)
                assert caught.value.status is Status.CANCELLED

            with anyio.fail_after(5):
                for _ in range(3):
                    tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                ours.channel.close()
                ours.channel.close()
                assert "closed" in repr(ours.channel)
        with pytest.raises(GRPCError) as caught:
            await unary(ours.channel)
        assert caught.value.status is Status.UNAVAILABLE


async def test_closing_wakes_who_waits_for_a_connection() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)) as channel:
        await endpoint.peers[0].stream.aclose()
        await anyio.wait_all_tasks_blocked()
        endpoint.hang = True
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    with pytest.raises(GRPCError) as caught:
                        await unary(channel)
                    assert caught.value.status is Status.UNAVAILABLE

                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                channel.close()
    await endpoint.close()


async def test_a_goodbye_is_sent_when_the_channel_is_closed() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect)):
        pass
    with anyio.fail_after(5):
        await endpoint.peers[0].until(h2.events.ConnectionTerminated)
    await endpoint.close()


@virtual_time
async def test_a_peer_that_does_not_read_does_not_hold_up_the_closing() -> None:
    endpoint = Endpoint()
    async with open_channel(Channel(endpoint.connect, options=RPCOptions())) as channel:
        async with anyio.create_task_group() as tasks:
            stub = EchoStub(channel)

            async def call() -> None:
                with pytest.raises(GRPCError):
                    await stub.Unary(EchoRequest(data=bytes(60_000)))

            for _ in range(3):
                tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            before = anyio.current_time()
            channel.close()
    assert anyio.current_time() - before < 5
    await endpoint.close()
