"""Calls that are begun and not finished, messages that never come to their end, and bombs."""

from __future__ import annotations

import gzip
from typing import Any

import anyio
import h2.events
import pytest
from anyio import lowlevel
from grpclib.const import Status

from pyvider_rpcplugin.http2 import LocalSettings
from pyvider_rpcplugin.rpc import RPCOptions
from tests.protos.echo_pb2 import EchoReply
from tests.rpc.support import Echo, ScriptedPeer, message

from .support import field

pytestmark = pytest.mark.net

WINDOW = LocalSettings().initial_window_size
CONNECTION_WINDOW = LocalSettings().connection_window_size


def status_in(event: Any) -> Status:
    return Status(int(dict(event.headers)["grpc-status"]))


async def pour(peer: ScriptedPeer, stream_id: int, size: int) -> int:
    """Send content as the windows allow; return how much of it."""
    sent = 0
    while sent < size:
        part = min(
            size - sent,
            peer.h2.local_flow_control_window(stream_id),
            peer.h2.max_outbound_frame_size,
        )
        if part <= 0:
            break
        peer.h2.send_data(stream_id, bytes(part))
        sent += part
        await peer.send()
    return sent


async def test_calls_that_are_never_finished_are_bounded_and_the_next_ones_refused() -> None:
    async with field(options=RPCOptions(max_concurrent_streams=50)) as here:
        async with here.speaker() as peer:
            for _ in range(50):
                await peer.request("ClientStream", end=False)
            # The peer's own bookkeeping would stop it: it lies to itself.
            peer.h2.remote_settings.max_concurrent_streams = 2**31 - 1
            peer.h2.remote_settings.acknowledge()
            for _ in range(30):
                number = await peer.request("ClientStream", end=False)
                reset = await peer.until(h2.events.StreamReset)
                assert (reset.stream_id, reset.error_code) == (number, 7)  # REFUSED_STREAM
            assert here.server.admission.calls == 50
            await here.check_undisturbed()
        while here.server.admission.calls:
            await lowlevel.checkpoint()


async def test_messages_that_never_come_to_their_end_hold_no_more_than_four_of_the_largest() -> (
    None
):
    largest = 1 << 20
    begun = (b"\0" + (largest - 10).to_bytes(4, "big"), largest - 1000)
    async with field(options=RPCOptions(max_receive_message_size=largest)) as here:
        async with here.speaker() as peer:
            for _ in range(12):
                stream_id = await peer.request("ClientStream", begun[0], end=False)
                await pour(peer, stream_id, begun[1])
                await anyio.wait_all_tasks_blocked()
            held = max(one._connection.early for one in here.server._connections)
            assert held <= 4 * largest + WINDOW
            for _ in range(12 - 5):
                event = await peer.until(h2.events.ResponseReceived)
                assert status_in(event) is Status.RESOURCE_EXHAUSTED
            await here.check_undisturbed()
        while len(here.server._connections) > 1:
            await lowlevel.checkpoint()
        assert [one._connection.early for one in here.server._connections] == [0]


async def test_messages_that_nobody_takes_hold_no_more_than_the_window() -> None:
    async def ignore(stream: Any) -> None:
        await go.wait()

    go = anyio.Event()
    async with field(Echo(ClientStream=ignore)) as here, here.speaker() as peer:
        sent = 0
        for _ in range(20):
            stream_id = await peer.request("ClientStream", end=False)
            part = await pour(peer, stream_id, 2 * WINDOW)
            assert part <= WINDOW
            sent += part
        assert sent == CONNECTION_WINDOW
        await here.check_undisturbed()
        go.set()


async def test_message_that_says_that_it_is_too_large_is_refused_before_it_has_come() -> None:
    async with field(options=RPCOptions(max_receive_message_size=10_000)) as here:
        async with here.speaker() as peer:
            await peer.request("ClientStream", b"\0\xff\xff\xff\xff", end=False)
            event = await peer.until(h2.events.ResponseReceived)
            assert status_in(event) is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("times", [1, 2])
async def test_bomb_is_not_blown_up_beyond_the_limit(times: int) -> None:
    limit = 100_000
    bomb = bytes(50_000_000)
    for _ in range(times):
        bomb = gzip.compress(bomb)
    async with field(options=RPCOptions(max_receive_message_size=limit)) as here:
        async with here.speaker() as peer:
            content = b"\1" + len(bomb).to_bytes(4, "big") + bomb
            stream_id = await peer.request(
                "Unary", content[:100], end=False, fields={"grpc-encoding": "gzip"}
            )
            await pour_all(peer, stream_id, content[100:])
            event = await peer.until(h2.events.ResponseReceived)
            # Bombs within bombs are not opened: what comes out is no message.
            assert status_in(event) in {Status.RESOURCE_EXHAUSTED, Status.INTERNAL}


async def pour_all(peer: ScriptedPeer, stream_id: int, content: bytes) -> None:
    for at in range(0, len(content), 10_000):
        peer.h2.send_data(stream_id, content[at : at + 10_000])
    await peer.send()


async def test_reader_that_is_slow_holds_up_its_own_calls_and_little_memory() -> None:
    sent = 0

    async def flood(stream: Any) -> None:
        nonlocal sent
        await stream.recv_message()
        while True:
            await stream.send_message(EchoReply(data=bytes(50_000)))
            sent += 50_000

    async with field(Echo(ServerStream=flood)) as here:
        async with here.speaker(initial_window_size=2**31 - 1) as peer:
            peer.h2.increment_flow_control_window(2**30)
            for _ in range(20):
                await peer.request("ServerStream", message())
            # It reads no more. What fits into the system's buffers is sent.
            before = -1
            while sent > before:
                before = sent
                await anyio.wait_all_tasks_blocked()
                await here.check_undisturbed(3)
            sizes = [
                one._connection.h2.output_size + len(one._connection._unsent)
                for one in here.server._connections
            ]
            assert max(sizes) < 3 << 20
            assert sent < 20 << 20


async def test_call_with_oversized_headers_costs_the_others_of_its_connection_nothing() -> None:
    go = anyio.Event()

    async def wait(stream: Any) -> None:
        await go.wait()
        await stream.send_message(EchoReply(text="done"))

    async with field(Echo(ClientStream=wait)) as here, here.speaker() as peer:
        waiting = await peer.request("ClientStream")
        for fields in (
            {f"x-{number}": "y" for number in range(600)},
            {"x": "y" * 70_000},
        ):
            number = await peer.request("Unary", fields=fields)
            reset = await peer.until(h2.events.StreamReset)
            assert (reset.stream_id, reset.error_code) == (number, 11)
        await peer.request("Unary", message("x"))
        await peer.until(h2.events.TrailersReceived)
        go.set()
        event = await peer.until(h2.events.TrailersReceived)
        assert event.stream_id == waiting
        assert status_in(event) is Status.OK
