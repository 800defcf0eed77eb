"""The behaviours of the public gRPC interop tests, for clients with grpclib's interface.

Our client runs them in the tests, and grpclib's in a process of its own.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

from .service import INITIAL, TRAILING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

REQUEST_SIZES = (27182, 8, 1828, 45904)
REPLY_SIZES = (31415, 9, 2653, 58979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"


async def status_of(awaitable: Awaitable[Any]) -> tuple[Status, str | None, Any]:
    """How a call fails."""
    try:
        await awaitable
    except GRPCError as error:
        return error.status, error.message, error.details
    msg = "the call succeeded"
    raise AssertionError(msg)


async def empty_unary(channel: Any) -> None:
    reply = await EchoStub(channel).Unary(EchoRequest())
    assert reply == EchoReply()


async def large_unary(channel: Any) -> None:
    data = bytes(271_828)
    reply = await EchoStub(channel).Unary(EchoRequest(data=data, text="size:314159"))
    assert reply.data == bytes(314_159)


async def twenty_mebibytes(channel: Any) -> None:
    data = b"0123456789abcdef" * (20 << 16)
    reply = await EchoStub(channel).Unary(EchoRequest(data=data))
    assert reply.data == data


async def client_streaming(channel: Any) -> None:
    requests = [EchoRequest(data=bytes(size)) for size in REQUEST_SIZES]
    reply = await EchoStub(channel).ClientStream(requests)
    assert (len(reply.data), reply.index) == (sum(REQUEST_SIZES), 4)


async def server_streaming(channel: Any) -> None:
    for size in REPLY_SIZES:
        replies = await EchoStub(channel).ServerStream(EchoRequest(text=f"size:{size}", count=4))
        assert [len(reply.data) for reply in replies] == [size] * 4
        assert [reply.index for reply in replies] == [0, 1, 2, 3]


async def ping_pong(channel: Any) -> None:
    async with EchoStub(channel).Bidi.open() as stream:
        for sent, asked in zip(REQUEST_SIZES, REPLY_SIZES, strict=True):
            await stream.send_message(EchoRequest(data=bytes(sent), text=f"size:{asked}"))
            reply = await stream.recv_message()
            assert reply is not None
            assert len(reply.data) == asked
        await stream.end()
        assert await stream.recv_message() is None


async def empty_stream(channel: Any) -> None:
    assert await EchoStub(channel).Bidi([]) == []
    assert await EchoStub(channel).ServerStream(EchoRequest(count=0)) == []
    assert (await EchoStub(channel).ClientStream([])).index == 0


async def custom_metadata(channel: Any) -> None:
    values: dict[str, Any] = {INITIAL: "test_initial_metadata_value", TRAILING: b"\xab\xab\xab"}
    for method in ("Unary", "Bidi"):
        for binary in (b"\xab\xab\xab", b"\0", b"\xff\xfe", b"1234", bytes(range(256))):
            values[TRAILING] = binary
            async with getattr(EchoStub(channel), method).open(metadata=values) as stream:
                await stream.send_message(EchoRequest(), end=True)
                assert await stream.recv_message() is not None
                assert await stream.recv_message() is None
                await stream.recv_trailing_metadata()
            assert stream.initial_metadata[INITIAL] == values[INITIAL]
            assert stream.trailing_metadata[TRAILING] == binary


async def status_code_and_message(channel: Any) -> None:
    stub = EchoStub(channel)
    request = EchoRequest(text="status:2:test status message")
    expected = (Status.UNKNOWN, "test status message", None)
    assert await status_of(stub.Unary(request)) == expected
    assert await status_of(stub.Bidi([request])) == expected
    assert await status_of(stub.ClientStream([request])) == expected
    request.count = 2
    assert await status_of(stub.ServerStream(request)) == expected


async def special_status_message(channel: Any) -> None:
    request = EchoRequest(text=f"status:2:{SPECIAL}")
    assert await status_of(EchoStub(channel).Unary(request)) == (Status.UNKNOWN, SPECIAL, None)


async def error_details(channel: Any) -> None:
    status, message, details = await status_of(EchoStub(channel).Unary(EchoRequest(text="details")))
    assert (status, message) == (Status.ABORTED, "see details")
    assert [(one.reason, one.domain) for one in details] == [("r", "d")]


async def unimplemented_method(channel: Any) -> None:
    method = UnaryUnaryMethod(channel, "/testing.echo.Echo/None", EchoRequest, EchoReply)
    assert (await status_of(method(EchoRequest())))[0] is Status.UNIMPLEMENTED


async def unimplemented_service(channel: Any) -> None:
    method = UnaryUnaryMethod(channel, "/testing.none.None/Unary", EchoRequest, EchoReply)
    assert (await status_of(method(EchoRequest())))[0] is Status.UNIMPLEMENTED


async def cancel_after_begin(channel: Any) -> None:
    async with EchoStub(channel).ClientStream.open() as stream:
        await stream.send_request()
        await stream.cancel()
    await empty_unary(channel)


async def cancel_after_first_response(channel: Any) -> None:
    async with EchoStub(channel).Bidi.open() as stream:
        await stream.send_message(EchoRequest(text="size:31415", data=bytes(27182)))
        assert await stream.recv_message() is not None
        await stream.cancel()
    await empty_unary(channel)


async def cancelled_task(channel: Any) -> None:
    key = uuid.uuid4().hex
    running = anyio.Event()

    async def call() -> None:
        async with EchoStub(channel).ServerStream.open() as stream:
            await stream.send_message(EchoRequest(text=f"hang:{key}", count=1))
            assert await stream.recv_message() is not None
            running.set()
            await stream.recv_message()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await running.wait()
        tasks.cancel_scope.cancel()
    reply = await EchoStub(channel).Unary(EchoRequest(text=f"cancelled:{key}"), timeout=5)
    assert reply.text


async def timeout_on_sleeping_server(channel: Any) -> None:
    key = uuid.uuid4().hex
    running = False

    async def call() -> None:
        nonlocal running
        async with EchoStub(channel).ServerStream.open(timeout=0.1) as stream:
            await stream.send_message(EchoRequest(text=f"hang:{key}", data=bytes(27182), count=1))
            running = await stream.recv_message() is not None
            await stream.recv_message()

    try:
        status, _, _ = await status_of(call())
    except TimeoutError:
        status = Status.DEADLINE_EXCEEDED
    assert status is Status.DEADLINE_EXCEEDED
    if running:  # else the machine was too slow for its handler to begin
        reply = await EchoStub(channel).Unary(EchoRequest(text=f"cancelled:{key}"), timeout=5)
        assert reply.text


async def many_concurrent_calls(channel: Any) -> None:
    stub = EchoStub(channel)
    answers = []

    async def call(number: int) -> None:
        reply = await stub.Unary(EchoRequest(text=str(number), data=bytes(number * 100)))
        assert (reply.text, len(reply.data)) == (str(number), number * 100)
        answers.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(call, number)
    assert sorted(answers) == list(range(200))


SCENARIOS: dict[str, Callable[[Any], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        empty_unary,
        large_unary,
        twenty_mebibytes,
        client_streaming,
        server_streaming,
        ping_pong,
        empty_stream,
        custom_metadata,
        status_code_and_message,
        special_status_message,
        error_details,
        unimplemented_method,
        unimplemented_service,
        cancel_after_begin,
        cancel_after_first_response,
        cancelled_task,
        timeout_on_sleeping_server,
        many_concurrent_calls,
    )
}
