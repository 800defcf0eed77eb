"""What is done with is freed at once: no call leaves objects for the collector of cycles."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.rpc import Channel, ClientStream
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, Linked, linked, request


def ours_among_garbage() -> list[object]:
    """Objects of our classes that only the collector frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [one for one in gc.garbage if type(one).__module__.startswith("pyvider_rpcplugin")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


async def _unary(ours: Linked) -> None:
    await ours.stub.Unary(EchoRequest(text="x"), timeout=100)


async def _streams(ours: Linked) -> None:
    await ours.stub.ServerStream(EchoRequest(count=3))
    await ours.stub.ClientStream([EchoRequest()] * 3)
    await ours.stub.Bidi([EchoRequest()] * 3)


async def _left_early(ours: Linked) -> None:
    async with request(ours.channel, "ServerStream") as stream:
        await stream.send_message(EchoRequest(count=1000))
        await stream.recv_message()


async def _error(ours: Linked) -> None:
    with pytest.raises(GRPCError):
        await ours.stub.ClientStream([EchoRequest()])


async def _deadline(ours: Linked) -> None:
    with pytest.raises(TimeoutError):
        await ours.stub.ServerStream(EchoRequest(count=-1), timeout=0.01)


async def _cancelled(ours: Linked) -> None:
    with anyio.move_on_after(0.01):
        await ours.stub.ServerStream(EchoRequest(count=-1))


async def handler_stream(stream: Any) -> None:
    got = await stream.recv_message()
    if got.count < 0:
        await anyio.Event().wait()
    for _ in range(got.count):
        await stream.send_message(EchoReply())


async def handler_error(stream: Any) -> None:
    raise GRPCError(Status.ABORTED, "why")


@pytest.mark.parametrize(
    "operation", [_unary, _left_early, _error, _deadline, _cancelled], ids=lambda f: f.__name__
)
async def test_a_call_leaves_no_cycles(operation: Any) -> None:
    service = Echo(ServerStream=handler_stream, ClientStream=handler_error)
    async with linked(service) as ours:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await operation(ours)
            await anyio.wait_all_tasks_blocked()
            left = ours_among_garbage()
        finally:
            gc.enable()
        if operation in {_cancelled, _left_early, _deadline}:
            # A handle of anyio's keeps the cancellation of the task, and trio's tracebacks lead
            # from there to who cancelled it: on the server's side that cycle is not ours.
            left = [one for one in left if isinstance(one, (ClientStream, Channel))]
        assert left == []


async def test_streams_leave_no_cycles() -> None:
    async with linked() as ours:
        gc.collect()
        gc.disable()
        try:
            await _streams(ours)
            await anyio.wait_all_tasks_blocked()
            left = ours_among_garbage()
        finally:
            gc.enable()
        assert left == []


@pytest.mark.parametrize("link", ["memory", "unix"])
async def test_an_idle_connection_keeps_nothing_of_a_large_message(link: str) -> None:
    async with linked(Echo(), link=link) as ours:
        tracemalloc.start()
        try:
            async with request(ours.channel, "Bidi") as stream:
                with anyio.fail_after(5):
                    await stream.send_message(EchoRequest(data=bytes(1 << 20)))
                    await stream.recv_message()
                await anyio.wait_all_tasks_blocked()
                snapshot = tracemalloc.take_snapshot()
                await stream.end()
                await stream.recv_message()
        finally:
            tracemalloc.stop()
    # A part of what was read last may still be here.
    assert [trace for trace in snapshot.traces if trace.size > 1 << 19] == []
