"""Large compressed messages are packed and unpacked beside everything else."""

from __future__ import annotations

import gzip
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import h2.events
import pytest
from grpclib.const import Status

from pyvider_rpcplugin.rpc import DeadlineExceeded, RPCOptions, Server, _packing
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import (
    OK,
    RESPONSE,
    Echo,
    framed,
    linked,
    request,
    scripted_client,
    scripted_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = 1 << 20
GZIP = RPCOptions(compression="gzip")


@asynccontextmanager
async def no_threads() -> AsyncIterator[None]:
    """Nothing large is packed or unpacked as long as the block runs."""
    limiter = _packing._threads()
    borrowers = [object() for _ in range(int(limiter.total_tokens))]
    for borrower in borrowers:
        await limiter.acquire_on_behalf_of(borrower)
    try:
        yield
    finally:
        for borrower in borrowers:
            limiter.release_on_behalf_of(borrower)


async def until_one_waits() -> None:
    """Wait until something large is to be packed or unpacked."""
    while not _packing._threads().statistics().tasks_waiting:
        await anyio.lowlevel.checkpoint()


def status_in(event: Any) -> Status:
    return Status(int(dict(event.headers)["grpc-status"]))


async def test_other_calls_are_answered_while_a_bomb_is_unpacked() -> None:
    order: list[str] = []
    server = Server([Echo()], options=RPCOptions(max_receive_message_size=1 << 26))
    bomb = framed(gzip.compress(bytes((1 << 26) + 1), 9), flag=1)
    async with (
        scripted_client(server=server) as (_, peer),
        linked(server=server) as honest,
        anyio.create_task_group() as tasks,
    ):
        await honest.stub.Unary(EchoRequest())

        async def attack() -> None:
            await peer.request("Unary", bomb[:50], end=False, fields={"grpc-encoding": "gzip"})
            for at in range(50, len(bomb), 16_384):
                peer.h2.send_data(1, bomb[at : at + 16_384], end_stream=at + 16_384 >= len(bomb))
                await peer.send()
            response = await peer.until(h2.events.ResponseReceived)
            assert status_in(response) is Status.RESOURCE_EXHAUSTED
            order.append("bomb")

        tasks.start_soon(attack)
        async with no_threads():
            await until_one_waits()
            await honest.stub.Unary(EchoRequest())
            order.append("waiting")
        for _ in range(3):
            await honest.stub.Unary(EchoRequest())
            order.append("unpacking")
    assert order == ["waiting", *["unpacking"] * 3, "bomb"]


async def test_other_calls_go_on_while_a_large_message_is_packed() -> None:
    async with (
        linked(channel_options=GZIP, server_options=GZIP) as ours,
        anyio.create_task_group() as tasks,
    ):

        async def send_large() -> None:
            assert len((await ours.stub.Unary(EchoRequest(data=bytes(LARGE)))).data) == LARGE

        async with no_threads():
            tasks.start_soon(send_large)
            await until_one_waits()
            await ours.stub.Unary(EchoRequest(data=bytes(10_000)))


async def test_messages_keep_their_order_whatever_their_sizes() -> None:
    sizes = [10, LARGE, 0, 5, 300_000, 200_000, 7, LARGE, 1]
    async with linked(channel_options=GZIP, server_options=GZIP) as ours:
        replies = await ours.stub.Bidi([EchoRequest(data=bytes(size)) for size in sizes])
        assert [len(reply.data) for reply in replies] == sizes
        await ours.check_nothing_is_left()


async def test_a_message_is_still_there_when_its_receiver_was_cancelled_as_it_was_unpacked() -> (
    None
):
    async with scripted_server() as (channel, peer), request(channel, "ServerStream") as call:
        await call.send_message(EchoRequest())
        stream_id = (await peer.until(h2.events.RequestReceived)).stream_id
        assert stream_id is not None
        large = EchoReply(data=bytes(LARGE)).SerializeToString()
        content = framed(gzip.compress(large), flag=1) + framed(gzip.compress(b""), flag=1)
        headers = [*RESPONSE, ("grpc-encoding", "gzip")]
        await peer.respond(stream_id, content, OK, headers)
        async with no_threads(), anyio.create_task_group() as tasks:
            tasks.start_soon(call.recv_message)
            await until_one_waits()
            with pytest.raises(anyio.BusyResourceError):
                await call.recv_message()
            tasks.cancel_scope.cancel()
        reply = await call.recv_message()
        assert reply is not None
        assert len(reply.data) == LARGE
        assert await call.recv_message() == EchoReply()
        assert await call.recv_message() is None


async def test_nothing_else_is_sent_while_a_message_is_packed() -> None:
    async with linked(channel_options=GZIP) as ours, request(ours.channel, "Bidi") as call:
        await call.send_request()
        async with no_threads(), anyio.create_task_group() as tasks:
            tasks.start_soon(call.send_message, EchoRequest(data=bytes(LARGE)))
            await until_one_waits()
            with pytest.raises(anyio.BusyResourceError):
                await call.send_message(EchoRequest())
            with pytest.raises(anyio.BusyResourceError):
                await call.end()
            tasks.cancel_scope.cancel()
        await call.send_message(EchoRequest(text="whole"), end=True)
        reply = await call.recv_message()
        assert reply is not None
        assert reply.text == "whole"


@pytest.mark.parametrize("sends", [True, False])
async def test_a_deadline_ends_the_wait_for_packing(sends: bool) -> None:
    options = {"channel_options": GZIP} if sends else {"server_options": GZIP}
    async with linked(**options) as ours, no_threads():  # type: ignore[arg-type]
        with pytest.raises(DeadlineExceeded):
            await ours.stub.Unary(EchoRequest(data=bytes(LARGE)), timeout=0.05)


@pytest.mark.parametrize("content", [b"no gzip" * 50_000, gzip.compress(bytes(LARGE))[:-1]])
async def test_what_is_malformed_costs_its_call_alone(content: bytes) -> None:
    async with scripted_client() as (_, peer):
        await peer.until(h2.events.RemoteSettingsChanged)
        body = framed(content, flag=1)
        stream_id = await peer.request("Unary", end=False, fields={"grpc-encoding": "gzip"})
        for at in range(0, len(body), 16_384):
            peer.h2.send_data(stream_id, body[at : at + 16_384])
            await peer.send()
        response = await peer.until(h2.events.ResponseReceived)
        assert status_in(response) is Status.INTERNAL


class Requests:
    """Calls of a stub in grpcio's form, with large messages compressed both ways."""

    def __init__(self, channel: Any) -> None:
        def written(message: Any) -> bytes:
            octets: bytes = message.SerializeToString()
            return octets

        self.options = (written, EchoReply.FromString)
        self.channel = channel

    def __getattr__(self, name: str) -> Any:
        make = {
            "Unary": "unary_unary",
            "ServerStream": "unary_stream",
            "ClientStream": "stream_unary",
            "Bidi": "stream_stream",
        }[name]
        return getattr(self.channel, make)(f"/testing.echo.Echo/{name}", *self.options)


async def test_calls_that_begin_when_they_are_made_pack_and_unpack_as_well() -> None:
    large = EchoRequest(data=bytes(LARGE), count=2)
    async with linked(channel_options=GZIP, server_options=GZIP) as ours:
        stub = Requests(ours.channel)
        async with no_threads():
            calls = [stub.Unary(large), stub.ServerStream(large), stub.ClientStream(iter([large]))]
            await until_one_waits()
            await ours.stub.Unary(EchoRequest())
            assert not any(call.done() for call in calls)
        unary, streamed, collected = calls
        assert len((await unary).data) == LARGE
        assert [len(reply.data) async for reply in streamed] == [LARGE, LARGE]
        assert len((await collected).data) == LARGE
        bidi = stub.Bidi()
        for _ in range(2):
            await bidi.write(large)
            assert len((await bidi.read()).data) == LARGE
        await bidi.done_writing()
        await ours.check_nothing_is_left()


async def test_such_a_call_may_be_cancelled_while_its_answer_is_unpacked() -> None:
    async with scripted_server() as (channel, peer):
        call = Requests(channel).Unary(EchoRequest())
        stream_id = (await peer.until(h2.events.RequestReceived)).stream_id
        assert stream_id is not None
        content = framed(gzip.compress(bytes(LARGE)), flag=1)
        async with no_threads():
            await peer.respond(stream_id, content, OK, [*RESPONSE, ("grpc-encoding", "gzip")])
            await until_one_waits()
            assert not call.done()
            assert call.cancel()
        assert call.cancelled()
