"""Plugins that answer their host with too much, or with no end."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.abc
import h2.events
import hpack
import pytest
from anyio import lowlevel
from anyio.abc import SocketStream
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hyperframe.frame import HeadersFrame

from pyvider_rpcplugin.http2 import LocalSettings
from pyvider_rpcplugin.rpc import Channel, RPCOptions, open_channel
from pyvider_rpcplugin.transport import TCPSocketTransport
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import OK, ScriptedPeer, message, request

pytestmark = pytest.mark.net

WINDOW = LocalSettings().initial_window_size
Answer = Callable[[ScriptedPeer, int], Awaitable[None]]


@asynccontextmanager
async def host_of(*answers: Answer, options: RPCOptions | None = None) -> AsyncIterator[Channel]:
    """A host whose plugin answers the first calls so, and all later ones as it should."""
    left = list(answers)

    async def handle(stream: SocketStream) -> None:
        async with stream:
            peer = ScriptedPeer(stream, client_side=False)
            await peer.start()
            with suppress(AssertionError):  # the host has left
                while True:
                    event = await peer.until(h2.events.RequestReceived)
                    assert event.stream_id is not None
                    if left:
                        await left.pop(0)(peer, event.stream_id)
                    else:
                        await peer.respond(event.stream_id, message("well"), OK)

    with anyio.fail_after(20):
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, handle)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            transport = TCPSocketTransport("127.0.0.1", port)
            async with open_channel(Channel(transport.connect, options=options)) as channel:
                yield channel
            tasks.cancel_scope.cancel()


async def check_well(channel: Channel) -> None:
    (connection,) = channel._connections
    assert (await EchoStub(channel).Unary(EchoRequest())).text == "well"
    assert channel._connections == {connection}


async def announce_too_much(peer: ScriptedPeer, stream_id: int) -> None:
    await peer.respond(stream_id, b"\0\xff\xff\xff\xff" + bytes(100))


async def send_bomb(peer: ScriptedPeer, stream_id: int) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    headers = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")]
    content = b"\1" + len(bomb).to_bytes(4, "big") + bomb
    peer.h2.send_headers(stream_id, headers)
    for at in range(0, len(content), 10_000):
        peer.h2.send_data(stream_id, content[at : at + 10_000])
    await peer.send()


async def send_endless_trailers(peer: ScriptedPeer, stream_id: int) -> None:
    await peer.respond(stream_id, message("x"))
    block = hpack.Encoder().encode([("grpc-status", "0")] + [("x", "y" * 100)] * 600)
    # Not by `h2`, which knows what the host takes; and so without the table that it keeps.
    frame = HeadersFrame(stream_id, block, flags=["END_HEADERS", "END_STREAM"])
    await peer.send(frame.serialize())


@pytest.mark.parametrize(
    "answer", [announce_too_much, send_bomb, send_endless_trailers], ids=lambda f: f.__name__
)
async def test_answer_that_is_too_large_costs_its_call_alone(answer: Answer) -> None:
    options = RPCOptions(max_receive_message_size=100_000)
    async with host_of(answer, options=options) as channel:
        with pytest.raises(GRPCError) as caught:
            await EchoStub(channel).Unary(EchoRequest())
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        if answer is not send_endless_trailers:  # which has left h2's table behind
            await check_well(channel)


async def test_answers_that_never_come_to_their_end_hold_no_more_than_four_of_the_largest() -> None:
    largest = 1 << 20

    async def begin(peer: ScriptedPeer, stream_id: int) -> None:
        peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        content = b"\0" + (largest - 10).to_bytes(4, "big") + bytes(largest - 1000)
        while content:
            room = min(
                peer.h2.local_flow_control_window(stream_id), peer.h2.max_outbound_frame_size
            )
            if room <= 0:
                await peer.send()
                await peer.receive()
                continue
            peer.h2.send_data(stream_id, content[:room])
            content = content[room:]
        await peer.send()

    failures: list[GRPCError] = []

    async def call(channel: Channel) -> None:
        with pytest.raises(GRPCError) as caught:
            await EchoStub(channel).Unary(EchoRequest())
        failures.append(caught.value)

    options = RPCOptions(max_receive_message_size=largest)
    async with host_of(*[begin] * 12, options=options) as channel:
        (connection,) = channel._connections
        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(call, channel)
            while len(failures) < 12 - 5:
                assert connection.early <= 4 * largest + WINDOW
                await lowlevel.checkpoint()
            assert {error.status for error in failures} == {Status.RESOURCE_EXHAUSTED}
            await check_well(channel)
            tasks.cancel_scope.cancel()
        assert connection.early == 0


async def test_stream_of_answers_waits_for_a_host_that_does_not_take_them() -> None:
    sent = 0

    async def pour(peer: ScriptedPeer, stream_id: int) -> None:
        nonlocal sent
        peer.h2.send_headers(stream_id, [(":status", "200"), ("content-type", "application/grpc")])
        one = message(data=bytes(9000))
        while peer.h2.local_flow_control_window(stream_id) >= len(one):
            peer.h2.send_data(stream_id, one)
            sent += len(one)
        await peer.send()

    async with host_of(pour) as channel:
        async with request(channel, "ServerStream") as stream:
            await stream.send_message(EchoRequest())
            await check_well(channel)
            assert 0 < sent <= WINDOW
            (connection,) = channel._connections
            assert sum(one.unconsumed for one in connection.h2.streams.values()) <= WINDOW
            await stream.cancel()


async def test_host_that_sends_fast_waits_for_a_plugin_that_does_not_take_it() -> None:
    async def ignore(peer: ScriptedPeer, stream_id: int) -> None:
        # Of this call; there is room on the connection for others.
        peer.h2.increment_flow_control_window(1 << 20)
        await peer.send()

    sent = 0
    async with host_of(ignore) as channel:
        async with request(channel, "ClientStream") as stream:
            await stream.send_request()

            async def send() -> None:
                nonlocal sent
                while True:
                    await stream.send_message(EchoRequest(data=bytes(9000)))
                    sent += 9000

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await check_well(channel)
                await anyio.wait_all_tasks_blocked()
                # What h2 allows by default.
                assert 0 < sent <= 65_535
                tasks.cancel_scope.cancel()
            await stream.cancel()
