"""One connection: keepalive, back-pressure, peers that do not read."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import h2.events
import pytest
import trio.testing
from anyio.abc import ByteStream
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.rpc import Channel, ConnectionLost, RPCOptions, Server, open_channel
from pyvider_rpcplugin.transport.memory import MemoryStream
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import (
    OK,
    Echo,
    ScriptedPeer,
    linked,
    message,
    request,
    scripted_client,
    scripted_server,
)

virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    [pytest.param(("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}), id="virtual")],
)
KEEPALIVE = RPCOptions(keepalive_time=300, keepalive_timeout=20)


@virtual_time
async def test_a_silent_peer_is_probed_and_then_given_up() -> None:
    ours, theirs = MemoryStream.pair()
    peer = ScriptedPeer(theirs, client_side=False)
    await peer.start()

    async def connect() -> ByteStream:
        return ours

    async with open_channel(Channel(connect, options=KEEPALIVE)) as channel:
        start = anyio.current_time()
        with pytest.raises(ConnectionLost, match="PING"):
            await EchoStub(channel).Unary(EchoRequest())
        assert 320 <= anyio.current_time() - start < 325
    await theirs.aclose()


@virtual_time
async def test_a_peer_that_answers_probes_is_kept() -> None:
    ours, theirs = MemoryStream.pair()
    peer = ScriptedPeer(theirs, client_side=False)
    await peer.start()

    async def connect() -> ByteStream:
        return ours

    async with open_channel(Channel(connect, options=KEEPALIVE)) as channel:
        async with anyio.create_task_group() as tasks:

            async def serve() -> None:
                request = None
                pings = 0
                while pings < 5:
                    await peer.receive()  # h2 answers PING by itself
                    for event in peer.events:
                        if isinstance(event, h2.events.RequestReceived):
                            request = event
                        pings += isinstance(event, h2.events.PingReceived)
                    peer.events.clear()
                assert request is not None
                assert request.stream_id is not None
                await peer.respond(request.stream_id, message("late"), OK)

            tasks.start_soon(serve)
            start = anyio.current_time()
            assert (await EchoStub(channel).Unary(EchoRequest())).text == "late"
            assert anyio.current_time() - start >= 5 * 300
    await theirs.aclose()


@virtual_time
async def test_a_server_probes_its_clients_too() -> None:
    server = Server([Echo()], options=KEEPALIVE)
    ours, theirs = MemoryStream.pair()
    async with anyio.create_task_group() as tasks, theirs:
        tasks.start_soon(server.serve_stream, ours)
        peer = ScriptedPeer(theirs, client_side=True)
        await peer.start()
        with anyio.fail_after(1000):
            await anyio.sleep(330)
            with pytest.raises(anyio.EndOfStream):
                while True:
                    await theirs.receive()


async def test_a_sender_waits_for_a_peer_that_does_not_read_and_no_memory_is_filled() -> None:
    async with scripted_server(initial_window_size=2**31 - 1) as (channel, peer):
        async with request(channel, "ClientStream") as stream:
            await stream.send_request()
            peer.h2.increment_flow_control_window(2**30)
            await peer.send()
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await stream.send_message(EchoRequest(data=bytes(100_000)))
                    sent += 100_000

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await anyio.wait_all_tasks_blocked()
                assert sent < 8 << 20
                (connection,) = channel._connections
                assert connection.h2.output_size < 8 << 20
                before = sent
                while sent < before + 1_000_000:
                    await peer.receive()
                    await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            await stream.cancel()


async def test_who_waits_for_a_peer_that_does_not_read_meets_the_deadline() -> None:
    async with scripted_server(initial_window_size=2**31 - 1) as (channel, peer):
        peer.h2.increment_flow_control_window(2**30)
        await peer.send()
        with anyio.fail_after(5), pytest.raises(TimeoutError):
            async with request(channel, "ClientStream", timeout=0.05) as stream:
                while True:
                    await stream.send_message(EchoRequest(data=bytes(100_000)))


async def test_a_peer_that_asks_and_never_reads_is_given_up() -> None:
    async with scripted_client() as (server, peer):
        await anyio.wait_all_tasks_blocked()
        (connection,) = server._connections
        engine = connection._connection.h2
        peer.h2.ping(bytes(8))
        pings = peer.h2.data_to_send() * 500
        with anyio.fail_after(10):
            with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
                while True:
                    await peer.stream.send(pings)
                    assert engine.output_size < 20 << 20
            while server._connections:
                await anyio.lowlevel.checkpoint()


class HalfDead(ByteStream):
    """A stream that can be read from, but no longer written to."""

    def __init__(self, stream: MemoryStream, *, nowait: bool) -> None:
        self.stream = stream
        self.dead = False
        if nowait:
            self.send_nowait = self._send_nowait

    def _send_nowait(self, data: bytes) -> int:
        if self.dead:
            raise anyio.BrokenResourceError
        return 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        if self.dead:
            raise anyio.BrokenResourceError
        await self.stream.send(item)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.stream.aclose()


@virtual_time
@pytest.mark.parametrize("nowait", [False, True])
async def test_a_peer_that_closes_only_its_receiving_side_is_lost_too(nowait: bool) -> None:
    ours, theirs = MemoryStream.pair()
    stream = HalfDead(ours, nowait=nowait)
    peer = ScriptedPeer(theirs, client_side=False)
    await peer.start()

    async def connect() -> ByteStream:
        return stream

    async with open_channel(Channel(connect)) as channel:
        stream.dead = True
        with anyio.fail_after(60), pytest.raises(ConnectionLost):
            await EchoStub(channel).Unary(EchoRequest())
    await theirs.aclose()


async def test_a_slow_reader_among_many_calls_holds_up_none_of_them() -> None:
    async def server_stream(stream: Any) -> None:
        while True:
            await stream.send_message(EchoReply(data=bytes(50_000)))

    async with linked(Echo(ServerStream=server_stream)) as ours:
        async with request(ours.channel, "ServerStream") as slow:
            await slow.send_message(EchoRequest())
            await slow.recv_message()  # and nothing more
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                for _ in range(50):
                    reply = await ours.stub.Unary(EchoRequest(data=bytes(10_000)))
                    assert len(reply.data) == 10_000
        await ours.check_nothing_is_left()


async def test_log_lines_that_a_peer_can_cause_are_quiet(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "pyvider_rpcplugin")
    async with scripted_client() as (_, peer):
        for _ in range(20):
            stream_id = await peer.request(end=False)
            await peer.send(b"\0\0\4\x08\0" + stream_id.to_bytes(4, "big") + bytes(4))
            await peer.until(h2.events.StreamReset)
    ours = [record for record in caplog.records if record.name.startswith("pyvider_rpcplugin")]
    assert ours
    assert not [record for record in ours if record.levelname in {"WARNING", "ERROR"}]


async def test_a_fault_of_the_peer_is_one_log_line(caplog: Any) -> None:
    async with scripted_client() as (_, peer):
        await peer.send(b"\0\0\4\x08\0\0\0\0\0" + bytes(4))
        await peer.until(h2.events.ConnectionTerminated)
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1


async def test_statuses_survive_a_connection_that_is_about_to_close() -> None:
    async def unary(stream: Any) -> None:
        await stream.recv_message()
        raise GRPCError(Status.ABORTED, "last")

    async with linked(Echo(Unary=unary), link="unix") as ours:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):

                async def call() -> None:
                    with pytest.raises(GRPCError, match="last"):
                        await ours.stub.Unary(EchoRequest())

                tasks.start_soon(call)
            await anyio.lowlevel.checkpoint()
            while not ours.server._connections or not any(
                one._calls for one in ours.server._connections
            ):
                await anyio.lowlevel.checkpoint()
            await ours.server.stop(5)
            tasks.cancel_scope.cancel()
