"""Calls that are made again: because they are idempotent, or because the server had not begun."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import h2.errors
import h2.events
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import ConfigError
from pyvider_rpcplugin.client._idempotent import RetryingHandle
from pyvider_rpcplugin.rpc import Channel, InterceptedCall, open_channel
from pyvider_rpcplugin.rpc._retry import MOST_ATTEMPTS
from pyvider_rpcplugin.transport.memory import MemoryStream
from tests.protos import echo_pb2_grpc
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import OK, RESPONSE, UNARY, Echo, ScriptedPeer, linked, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

KINDS = pytest.mark.parametrize("kind", ["grpclib", "grpcio"])


class Moody(Echo):
    """Fails so many calls with a status, after so many replies."""

    def __init__(self, failures: int, status: Status = Status.UNAVAILABLE, after: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.status = status
        self.after = after
        self.calls = 0

    async def Unary(self, stream: Any) -> None:
        await stream.recv_message()
        self.calls += 1
        if self.calls <= self.failures:
            raise GRPCError(self.status, "in a bad mood")
        await stream.send_message(EchoReply(text="well"))

    async def ServerStream(self, stream: Any) -> None:
        request = await stream.recv_message()
        self.calls += 1
        for index in range(request.count):
            if index == self.after and self.calls <= self.failures:
                raise GRPCError(self.status, "in a bad mood")
            await stream.send_message(EchoReply(index=index))


def marked(channel: Channel, kind: str, idempotent: Any = True) -> Any:
    handle: Any = RetryingHandle(lambda: channel, idempotent)
    if kind == "grpcio":
        return echo_pb2_grpc.EchoStub(handle)
    return EchoStub(handle)


def status_of(error: Any) -> str:
    """The status's name, of both kinds of errors."""
    return str((error.status if isinstance(error, GRPCError) else error.code()).name)


async def all_of(stub: Any, kind: str, count: int) -> list[int]:
    if kind == "grpcio":
        return [reply.index async for reply in stub.ServerStream(EchoRequest(count=count))]
    return [reply.index for reply in await stub.ServerStream(EchoRequest(count=count))]


@KINDS
async def test_an_idempotent_call_is_made_again_until_it_works(kind: str) -> None:
    service = Moody(MOST_ATTEMPTS - 1)
    async with linked(service) as ours:
        reply = await marked(ours.channel, kind).Unary(EchoRequest(text="x"))
        assert reply.text == "well"
        assert service.calls == MOST_ATTEMPTS
        await ours.check_nothing_is_left()


@KINDS
async def test_but_not_for_ever(kind: str) -> None:
    service = Moody(1000)
    async with linked(service) as ours:
        with pytest.raises(Exception, match="bad mood") as caught:
            await marked(ours.channel, kind).Unary(EchoRequest())
        assert status_of(caught.value) == "UNAVAILABLE"
        assert service.calls == MOST_ATTEMPTS
        await ours.check_nothing_is_left()


@KINDS
async def test_nor_for_another_status(kind: str) -> None:
    service = Moody(1, Status.INTERNAL)
    async with linked(service) as ours:
        with pytest.raises(Exception, match="bad mood"):
            await marked(ours.channel, kind).Unary(EchoRequest())
        assert service.calls == 1


@KINDS
async def test_nor_is_a_method_that_was_not_named(kind: str) -> None:
    service = Moody(1)
    async with linked(service) as ours:
        with pytest.raises(Exception, match="bad mood"):
            await marked(ours.channel, kind, {"ServerStream"}).Unary(EchoRequest())
        assert service.calls == 1
        assert (await marked(ours.channel, kind, {UNARY}).Unary(EchoRequest())).text == "well"


@KINDS
async def test_a_streamed_answer_is_asked_for_again_before_its_first_reply(kind: str) -> None:
    service = Moody(2)
    async with linked(service) as ours:
        assert await all_of(marked(ours.channel, kind), kind, 3) == [0, 1, 2]
        assert service.calls == 3
        await ours.check_nothing_is_left()


@KINDS
async def test_and_not_after_it(kind: str) -> None:
    service = Moody(2, after=1)
    async with linked(service) as ours:
        with pytest.raises(Exception, match="bad mood"):
            await all_of(marked(ours.channel, kind), kind, 3)
        assert service.calls == 1
        await ours.check_nothing_is_left()


@KINDS
async def test_no_attempt_begins_that_could_not_end_within_the_deadline(kind: str) -> None:
    service = Moody(1000)
    async with linked(service) as ours:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of either kind
            await marked(ours.channel, kind).Unary(EchoRequest(), timeout=0.02)
        assert status_of(caught.value) in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
        assert service.calls <= 2


async def test_interceptors_see_it_once_and_are_told_once() -> None:
    seen: list[str] = []

    async def watch(call: InterceptedCall) -> Any:
        seen.append(call.method)
        return lambda status: seen.append(status.status.name)

    service = Moody(2)
    async with linked(service, interceptors=[watch]) as ours:
        await marked(ours.channel, "grpclib").Unary(EchoRequest())
        await marked(ours.channel, "grpcio").Unary(EchoRequest())
    assert seen == [UNARY, "OK"] * 2


async def test_what_an_interceptor_refuses_is_not_asked_again() -> None:
    asked = 0

    async def refuse(call: InterceptedCall) -> None:
        nonlocal asked
        asked += 1
        raise GRPCError(Status.UNAVAILABLE, "not now")

    async with linked(interceptors=[refuse]) as ours:
        with pytest.raises(GRPCError, match="not now"):
            await marked(ours.channel, "grpclib").Unary(EchoRequest())
    assert asked == 1


async def test_a_call_with_streamed_requests_is_never_made_again() -> None:
    calls = 0

    async def fail(stream: Any) -> None:
        nonlocal calls
        calls += 1
        raise GRPCError(Status.UNAVAILABLE, "no")

    async with linked(Echo(ClientStream=fail)) as ours:
        with pytest.raises(GRPCError):
            await marked(ours.channel, "grpclib").ClientStream([EchoRequest()])
    assert calls == 1


def test_names_that_are_none_are_refused() -> None:
    handle: Any = RetryingHandle(lambda: None, {"Unary", "server_stream"})  # type: ignore[arg-type,return-value]
    handle.check(EchoStub(handle))
    wrong: Any = RetryingHandle(lambda: None, {"Unari"})  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="no method 'Unari'"):
        wrong.check(EchoStub(wrong))
    with pytest.raises(ConfigError, match="several names"):
        RetryingHandle(lambda: None, "Unary")  # type: ignore[arg-type,return-value]


# --- what the server has not begun with ------------------------------------------------------------


@asynccontextmanager
async def refusing(times: int, how: str) -> AsyncIterator[Channel]:
    """A channel to a server that has not begun with some calls, and answers the others."""
    left = times

    async def serve(peer: ScriptedPeer) -> None:
        nonlocal left
        await peer.start()
        while True:
            peer.events.clear()
            try:
                number = (await peer.until(h2.events.StreamEnded)).stream_id
            except (AssertionError, anyio.BrokenResourceError, anyio.EndOfStream):
                return
            if left:
                left -= 1
                if how == "reset":
                    peer.h2.reset_stream(number, h2.errors.ErrorCodes.REFUSED_STREAM)
                else:
                    peer.h2.close_connection(last_stream_id=0)
                await peer.send()
                continue
            peer.h2.send_headers(number, RESPONSE)
            peer.h2.send_data(number, message("well"))
            peer.h2.send_headers(number, OK, end_stream=True)
            await peer.send()

    async with anyio.create_task_group() as tasks:

        async def connect() -> ByteStream:
            ours, theirs = MemoryStream.pair()
            tasks.start_soon(serve, ScriptedPeer(theirs, client_side=False))
            return ours

        with anyio.fail_after(10):
            async with open_channel(Channel(connect)) as channel:
                yield channel
        tasks.cancel_scope.cancel()


@KINDS
@pytest.mark.parametrize("how", ["reset", "goaway"])
async def test_any_call_that_the_server_has_not_begun_with_is_made_again(
    kind: str, how: str
) -> None:
    async with refusing(1, how) as channel:
        stub = marked(channel, kind, idempotent=False)
        assert (await stub.Unary(EchoRequest(text="x"))).text == "well"


@KINDS
async def test_once(kind: str) -> None:
    async with refusing(2, "reset") as channel:
        stub = marked(channel, kind, idempotent=False)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of either kind
            await stub.Unary(EchoRequest())
        assert status_of(caught.value) == "UNAVAILABLE"
