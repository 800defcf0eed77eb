"""grpcio's client, which runs scenarios against our server."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from tests.interop.peers.commands import obey
from tests.interop.scenarios import REPLY_SIZES, REQUEST_SIZES, SPECIAL
from tests.interop.service import INITIAL, TRAILING
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.protos.echo_pb2_grpc import EchoStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SCENARIOS: dict[str, Callable[[Any], Awaitable[None]]] = {}


def scenario(function: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Register a scenario; it gets a channel."""
    SCENARIOS[function.__name__] = function
    return function


def stub_of(channel: Any) -> Any:
    """An untyped stub: the generated one has no types."""
    return EchoStub(channel)


async def failure_of(awaitable: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """How a call fails."""
    try:
        await awaitable
    except grpc.aio.AioRpcError as error:
        return error
    msg = "the call succeeded"
    raise AssertionError(msg)


@scenario
async def empty_unary(channel: Any) -> None:
    assert await stub_of(channel).Unary(EchoRequest()) == EchoReply()


@scenario
async def large_unary(channel: Any) -> None:
    reply = await stub_of(channel).Unary(EchoRequest(data=bytes(271_828), text="size:314159"))
    assert reply.data == bytes(314_159)


@scenario
async def twenty_mebibytes(channel: Any) -> None:
    data = b"0123456789abcdef" * (20 << 16)
    assert (await stub_of(channel).Unary(EchoRequest(data=data))).data == data


@scenario
async def client_streaming(channel: Any) -> None:
    requests = [EchoRequest(data=bytes(size)) for size in REQUEST_SIZES]
    reply = await stub_of(channel).ClientStream(iter(requests))
    assert (len(reply.data), reply.index) == (sum(REQUEST_SIZES), 4)


@scenario
async def server_streaming(channel: Any) -> None:
    for size in REPLY_SIZES:
        call = stub_of(channel).ServerStream(EchoRequest(text=f"size:{size}", count=4))
        assert [len(reply.data) async for reply in call] == [size] * 4


@scenario
async def ping_pong(channel: Any) -> None:
    call = stub_of(channel).Bidi()
    for sent, asked in zip(REQUEST_SIZES, REPLY_SIZES, strict=True):
        await call.write(EchoRequest(data=bytes(sent), text=f"size:{asked}"))
        assert len((await call.read()).data) == asked
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@scenario
async def empty_stream(channel: Any) -> None:
    stub = stub_of(channel)
    assert [reply async for reply in stub.Bidi(iter(()))] == []
    assert [reply async for reply in stub.ServerStream(EchoRequest(count=0))] == []
    assert (await stub.ClientStream(iter(()))).index == 0


@scenario
async def custom_metadata(channel: Any) -> None:
    for binary in (b"\xab\xab\xab", b"\0", b"\xff\xfe", b"1234", bytes(range(256)), b""):
        metadata = ((INITIAL, "test_initial_metadata_value"), (TRAILING, binary))
        unary = stub_of(channel).Unary(EchoRequest(), metadata=metadata)
        await unary
        bidi = stub_of(channel).Bidi(iter([EchoRequest()]), metadata=metadata)
        assert len([reply async for reply in bidi]) == 1
        for call in (unary, bidi):
            initial = dict(await call.initial_metadata())
            trailing = dict(await call.trailing_metadata())
            assert initial[INITIAL] == "test_initial_metadata_value"
            assert trailing[TRAILING] == binary


@scenario
async def status_code_and_message(channel: Any) -> None:
    stub = stub_of(channel)
    request = EchoRequest(text="status:2:test status message")
    calls = [stub.Unary(request), stub.ClientStream(iter([request]))]
    streams = [
        stub.Bidi(iter([request])),
        stub.ServerStream(EchoRequest(text=request.text, count=2)),
    ]
    for call in (*calls, *[_last_of(stream) for stream in streams]):
        error = await failure_of(call)
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert error.details() == "test status message"


async def _last_of(stream: Any) -> Any:
    return [reply async for reply in stream][-1]


@scenario
async def special_status_message(channel: Any) -> None:
    error = await failure_of(stub_of(channel).Unary(EchoRequest(text=f"status:2:{SPECIAL}")))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == SPECIAL


@scenario
async def error_details(channel: Any) -> None:
    error = await failure_of(stub_of(channel).Unary(EchoRequest(text="details")))
    assert error.code() is grpc.StatusCode.ABORTED
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    detail = ErrorInfo()
    assert status.details[0].Unpack(detail)
    assert (detail.reason, detail.domain) == ("r", "d")


async def _unimplemented(channel: Any, path: str) -> None:
    method = channel.unary_unary(
        path, EchoRequest.SerializeToString, response_deserializer=EchoReply.FromString
    )
    assert (await failure_of(method(EchoRequest()))).code() is grpc.StatusCode.UNIMPLEMENTED


@scenario
async def unimplemented_method(channel: Any) -> None:
    await _unimplemented(channel, "/testing.echo.Echo/None")


@scenario
async def unimplemented_service(channel: Any) -> None:
    await _unimplemented(channel, "/testing.none.None/Unary")


@scenario
async def cancel_after_begin(channel: Any) -> None:
    call = stub_of(channel).ClientStream()
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await empty_unary(channel)


@scenario
async def cancel_after_first_response(channel: Any) -> None:
    key = uuid.uuid4().hex
    call = stub_of(channel).Bidi()
    await call.write(EchoRequest(data=bytes(27182), text="size:31415"))
    assert len((await call.read()).data) == 31415
    await call.write(EchoRequest(text=f"hang:{key}"))
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await empty_unary(channel)


@scenario
async def cancelled_task(channel: Any) -> None:
    key = uuid.uuid4().hex
    call = stub_of(channel).ServerStream(EchoRequest(text=f"hang:{key}", count=1))
    assert (await call.read()).index == 0
    call.cancel()
    await stub_of(channel).Unary(EchoRequest(text=f"cancelled:{key}"), timeout=5)


@scenario
async def timeout_on_sleeping_server(channel: Any) -> None:
    key = uuid.uuid4().hex
    request = EchoRequest(text=f"hang:{key}", data=bytes(27182), count=1)
    call = stub_of(channel).ServerStream(request, timeout=0.1)
    running = False
    try:
        running = await call.read() is not grpc.aio.EOF
        await call.read()
    except grpc.aio.AioRpcError:
        pass
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    if running:  # else the machine was too slow for its handler to begin
        await stub_of(channel).Unary(EchoRequest(text=f"cancelled:{key}"), timeout=5)


@scenario
async def many_concurrent_calls(channel: Any) -> None:
    stub = stub_of(channel)
    requests = [EchoRequest(text=str(n), data=bytes(n * 100)) for n in range(200)]
    replies = await asyncio.gather(*[stub.Unary(request) for request in requests])
    for request, reply in zip(requests, replies, strict=True):
        assert (request.text, request.data) == (reply.text, reply.data)


BOTH = (grpc.Compression.Gzip, grpc.Compression.Deflate)


@scenario
async def client_compressed_unary(channel: Any) -> None:
    for compression in BOTH:
        request = EchoRequest(data=bytes(271_828))
        reply = await stub_of(channel).Unary(request, compression=compression)
        assert reply.data == request.data


@scenario
async def client_compressed_streaming(channel: Any) -> None:
    for compression in BOTH:
        requests = [EchoRequest(data=bytes(size)) for size in REQUEST_SIZES]
        reply = await stub_of(channel).ClientStream(iter(requests), compression=compression)
        assert len(reply.data) == sum(REQUEST_SIZES)


@scenario
async def server_compressed_unary(channel: Any) -> None:
    for name in ("gzip", "deflate"):
        reply = await stub_of(channel).Unary(EchoRequest(data=bytes(314_159), text=name))
        assert reply.data == bytes(314_159)


@scenario
async def server_compressed_streaming(channel: Any) -> None:
    for name in ("gzip", "deflate"):
        call = stub_of(channel).ServerStream(EchoRequest(data=bytes(31_415), text=name, count=4))
        assert [len(reply.data) async for reply in call] == [31_415] * 4


async def run(scenario: str, address: str) -> None:
    """Run one scenario on a connection of its own."""
    target = f"unix:{address}" if address.startswith("/") else address
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        await SCENARIOS[scenario](channel)


if __name__ == "__main__":
    asyncio.run(obey(run))
