"""The client's side of a call: grpclib's methods, and servers that misbehave."""

from __future__ import annotations

from typing import Any

import anyio
import h2.errors
import h2.events
import pytest
from grpclib.const import Status
from grpclib.events import RecvInitialMetadata, RecvMessage, SendMessage, SendRequest, listen
from grpclib.exceptions import GRPCError, ProtocolError

from pyvider_rpcplugin.rpc import Channel, ConnectionLost, DeadlineExceeded, RPCOptions
from pyvider_rpcplugin.rpc._compression import ENCODINGS
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import (
    OK,
    RESPONSE,
    Echo,
    ScriptedPeer,
    framed,
    linked,
    message,
    request,
    scripted_server,
)

chopped = pytest.mark.parametrize("chop", [False, True], ids=["whole", "chopped"])


# --- when the methods may be called ----------------------------------------------------------------


async def test_methods_out_of_turn_say_so() -> None:
    async with linked() as ours:
        async with request(ours.channel, "Unary") as stream:
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.recv_initial_metadata()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.recv_message()
            with pytest.raises(ProtocolError, match="not ended"):
                await stream.recv_trailing_metadata()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.cancel()
            with pytest.raises(ProtocolError, match="not sent"):
                await stream.end()
            with pytest.raises(ProtocolError, match="requires a message"):
                await stream.send_request(end=True)
            await stream.send_request()
            with pytest.raises(ProtocolError, match="already sent"):
                await stream.send_request()
            with pytest.raises(ProtocolError, match="requires a single message"):
                await stream.end()
            await stream.send_message(EchoRequest(text="x"))
            with pytest.raises(ProtocolError, match="already sent"):
                await stream.send_message(EchoRequest())
            with pytest.raises(ProtocolError, match="not received"):
                await stream.recv_trailing_metadata()
            await stream.recv_initial_metadata()
            with pytest.raises(ProtocolError, match="already received"):
                await stream.recv_initial_metadata()
            reply = await stream.recv_message()
            assert reply is not None
            assert reply.text == "x"
            assert await stream.recv_message() is None
            await stream.recv_trailing_metadata()
            with pytest.raises(ProtocolError, match="already received"):
                await stream.recv_trailing_metadata()
        await ours.check_nothing_is_left()


async def test_a_unary_request_may_be_ended_once_more() -> None:
    async with linked() as ours:
        async with request(ours.channel, "Unary") as stream:
            await stream.send_message(EchoRequest())
            await stream.end()
            with pytest.raises(ProtocolError, match="already ended"):
                await stream.end()
        async with request(ours.channel, "Unary") as stream:
            await stream.send_message(EchoRequest(), end=True)
            with pytest.raises(ProtocolError, match="already ended"):
                await stream.end()


async def test_a_streamed_request_ends_once() -> None:
    async with linked() as ours:
        for end_early in (True, False):
            async with request(ours.channel, "ClientStream") as stream:
                if end_early:
                    await stream.send_request(end=True)
                else:
                    await stream.send_message(EchoRequest())
                    await stream.send_message(EchoRequest())
                    await stream.end()
                with pytest.raises(ProtocolError, match="already ended"):
                    await stream.end()
                with pytest.raises(ProtocolError, match="is ended"):
                    await stream.send_message(EchoRequest())
                reply = await stream.recv_message()
                assert reply is not None
                assert reply.index == (0 if end_early else 2)
        await ours.check_nothing_is_left()


async def test_a_block_that_was_not_ended_says_so_and_the_call_is_over() -> None:
    async with linked() as ours:
        with anyio.fail_after(5), pytest.raises(ProtocolError, match="not ended"):
            async with request(ours.channel, "ClientStream") as stream:
                await stream.send_message(EchoRequest())
        await ours.check_nothing_is_left()


async def test_a_block_in_which_nothing_was_sent_leaves_no_trace() -> None:
    async with linked() as ours:
        async with request(ours.channel, "Unary") as stream:
            assert stream.deadline is None
            assert "Unary" in repr(stream)
        await ours.check_nothing_is_left()


async def test_after_its_block_a_call_says_that_it_is_over() -> None:
    async with linked(Echo(ServerStream=forever)) as ours:
        async with request(ours.channel, "ServerStream") as stream:
            await stream.send_message(EchoRequest())
            assert await stream.recv_message() is not None
        with anyio.fail_after(5):
            with pytest.raises(GRPCError, match="over"):
                await stream.recv_message()
        async with request(ours.channel, "Bidi") as stream:
            await stream.send_message(EchoRequest())
        with anyio.fail_after(5):
            with pytest.raises(GRPCError, match="over"):
                await stream.send_message(EchoRequest())
        await ours.check_nothing_is_left()


async def test_an_empty_stream_has_trailing_metadata() -> None:
    async with linked() as ours:
        async with request(ours.channel, "ServerStream") as stream:
            await stream.send_message(EchoRequest(count=0))
            assert await stream.recv_message() is None
            await stream.recv_trailing_metadata()
            assert stream.trailing_metadata is not None


async def test_a_stream_is_iterated() -> None:
    async with linked() as ours:
        async with request(ours.channel, "ServerStream") as stream:
            await stream.send_message(EchoRequest(count=300))
            assert [reply.index async for reply in stream] == list(range(300))


async def test_a_unary_answer_that_nobody_took_is_no_error() -> None:
    async with linked() as ours:
        for size in (1, 10_000_000):
            async with request(ours.channel, "Unary") as stream:
                await stream.send_message(EchoRequest(data=bytes(size)))
            assert stream.trailing_metadata is not None
        await ours.check_nothing_is_left()


# --- leaving early -----------------------------------------------------------------------------------


async def forever(stream: Any) -> None:
    while True:
        await stream.send_message(EchoReply(data=bytes(1000)))


@pytest.mark.parametrize("how", ["leave", "raise", "break", "cancel"])
@pytest.mark.parametrize("method", ["ServerStream", "Bidi"])
async def test_who_leaves_a_stream_early_stops_its_handler(how: str, method: str) -> None:
    ended = anyio.Event()

    async def handler(stream: Any) -> None:
        try:
            await forever(stream)
        finally:
            ended.set()

    async with linked(Echo(**{method: handler})) as ours:
        with anyio.fail_after(5):
            try:
                async with request(ours.channel, method) as stream:
                    await stream.send_message(EchoRequest())
                    assert await stream.recv_message() is not None
                    if how == "raise":
                        raise LookupError
                    if how == "break":
                        async for _ in stream:
                            break
                    if how == "cancel":
                        await stream.cancel()
                        with pytest.raises(ProtocolError, match="already cancelled"):
                            await stream.cancel()
                        with pytest.raises(GRPCError, match="cancelled"):
                            while True:
                                await stream.recv_message()
            except LookupError:
                assert how == "raise"
            await ended.wait()
        await ours.check_nothing_is_left()


async def test_a_generator_over_a_stream_may_be_left_inside_a_timeout() -> None:
    async with linked(Echo(ServerStream=forever)) as ours:

        async def generate() -> Any:
            async with ours.stub.ServerStream.open() as stream:
                await stream.send_message(EchoRequest())
                async for reply in stream:
                    yield reply

        generator = generate()
        with anyio.fail_after(5):
            async for _ in generator:
                break
        with anyio.fail_after(5):
            await generator.aclose()
        await ours.check_nothing_is_left()


async def test_open_streams_may_be_closed_oldest_first_and_in_other_tasks() -> None:
    async with linked(Echo(ServerStream=forever)) as ours:
        streams = [request(ours.channel, "ServerStream", timeout=100) for _ in range(3)]
        with anyio.fail_after(5):
            for stream in streams:
                await stream.__aenter__()
                await stream.send_message(EchoRequest())
                await stream.recv_message()
            await streams[0].__aexit__(None, None, None)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(streams[1].__aexit__, None, None, None)
            assert await streams[2].recv_message() is not None
            await streams[2].__aexit__(None, None, None)
        await ours.check_nothing_is_left()


# --- two tasks on one stream ---------------------------------------------------------------------------


async def test_one_task_may_send_while_another_receives() -> None:
    async with linked() as ours:
        async with request(ours.channel, "Bidi") as stream:

            async def send() -> None:
                for number in range(200):
                    await stream.send_message(EchoRequest(text=str(number)))
                await stream.end()

            with anyio.fail_after(5):
                await stream.send_request()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(send)
                    assert [r.text async for r in stream] == [str(n) for n in range(200)]


async def test_two_tasks_may_not_receive_at_once() -> None:
    async with linked() as ours:
        async with request(ours.channel, "Bidi") as stream:
            await stream.send_request()
            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.recv_message)
                    await anyio.wait_all_tasks_blocked()
                    with pytest.raises(anyio.BusyResourceError):
                        await stream.recv_message()
                    await stream.send_message(EchoRequest(), end=True)


async def test_two_tasks_may_not_send_at_once_and_nothing_interleaves() -> None:
    async with scripted_server(initial_window_size=10) as (channel, peer):
        async with request(channel, "Bidi") as stream:
            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.send_message, EchoRequest(data=bytes(20)))
                    await peer.until(h2.events.DataReceived)
                    for _ in range(2):
                        with pytest.raises(anyio.BusyResourceError):
                            await stream.send_message(EchoRequest(data=bytes(20)))
                    peer.h2.increment_flow_control_window(5, 1)
                    await peer.send()
                    await peer.until(h2.events.DataReceived)
                    with pytest.raises(anyio.BusyResourceError):
                        await stream.send_message(EchoRequest(data=bytes(20)))
                    peer.h2.increment_flow_control_window(1000, 1)
                    await peer.send()
            await stream.cancel()


# --- what a server may not do, or rarely does -------------------------------------------------------


async def answer(
    peer: ScriptedPeer,
    body: bytes,
    trailers: list[tuple[str, str]] | None,
    headers: list[tuple[str, str]],
    end: str,
) -> None:
    event = await peer.until(h2.events.RequestReceived)
    assert event.stream_id is not None
    peer.h2.send_headers(event.stream_id, headers, end_stream=end == "headers")
    if body or end == "data":
        peer.h2.send_data(event.stream_id, body, end_stream=end == "data")
    if trailers is not None:
        peer.h2.send_headers(event.stream_id, trailers, end_stream=True)
    await peer.send()


GZIP = ENCODINGS["gzip"]

BAD_ANSWERS = {
    # name: (body, trailers, headers, what ends the stream, status, part of the message)
    "no trailers": (message("x"), None, RESPONSE, "data", Status.INTERNAL, "without trailers"),
    "no status": (message("x"), [("a", "b")], RESPONSE, "", Status.UNKNOWN, "grpc-status"),
    "no message": (b"", OK, RESPONSE, "", Status.INTERNAL, "without the one message"),
    "two messages": (message("x") * 2, OK, RESPONSE, "", Status.INTERNAL, "more than the one"),
    "half a message": (message("x")[:-1], OK, RESPONSE, "", Status.INTERNAL, "middle of a message"),
    "half a prefix": (b"\0\0", OK, RESPONSE, "", Status.INTERNAL, "middle of a message"),
    "half a message and a status": (
        message("x")[:-1],
        [("grpc-status", "10"), ("grpc-message", "why")],
        RESPONSE,
        "",
        Status.ABORTED,
        "why",
    ),
    "garbage": (framed(b"\xff\xff"), OK, RESPONSE, "", Status.INTERNAL, "no EchoReply"),
    "flag without encoding": (message("x", flag=1), OK, RESPONSE, "", Status.INTERNAL, "grpc-enc"),
    "not gzip": (
        message("x", flag=1),
        OK,
        [*RESPONSE, ("grpc-encoding", "gzip")],
        "",
        Status.INTERNAL,
        "gzip",
    ),
    "unknown encoding": (
        message("x"),
        OK,
        [*RESPONSE, ("grpc-encoding", "br")],
        "",
        Status.INTERNAL,
        "'br'",
    ),
    "trailers only": (
        b"",
        None,
        [*RESPONSE, ("grpc-status", "5"), ("grpc-message", "%C3%A4")],
        "headers",
        Status.NOT_FOUND,
        "ä",
    ),
    "trailers only, OK": (
        b"",
        None,
        [*RESPONSE, ("grpc-status", "0")],
        "headers",
        Status.INTERNAL,
        "without the one message",
    ),
    "headers only": (b"", None, RESPONSE, "headers", Status.UNKNOWN, "grpc-status"),
    "no content-type": (
        message("x"),
        OK,
        [(":status", "200")],
        "",
        Status.UNKNOWN,
        "content-type is none",
    ),
    "html": (
        b"<html>",
        None,
        [(":status", "200"), ("content-type", "text/html")],
        "data",
        Status.UNKNOWN,
        "text/html",
    ),
    "http 503": (b"busy", None, [(":status", "503")], "data", Status.UNAVAILABLE, "503"),
    "http 404, at once": (b"", None, [(":status", "404")], "headers", Status.UNIMPLEMENTED, "404"),
    "http 503, unfinished": (b"", None, [(":status", "503")], "", Status.UNAVAILABLE, "503"),
    "http 503 with a status": (
        b"",
        None,
        [(":status", "503"), ("grpc-status", "7")],
        "headers",
        Status.PERMISSION_DENIED,
        "",
    ),
}


async def by_stub(channel: Channel, message: EchoRequest) -> EchoReply:
    return await EchoStub(channel).Unary(message)


async def in_one(channel: Channel, message: EchoRequest) -> EchoReply:
    reply: EchoReply = await request(channel, "Unary").unary(message)
    return reply


unary = pytest.mark.parametrize("unary", [by_stub, in_one])


@chopped
@unary
@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_a_wrong_answer_has_a_status(name: str, unary: Any, chop: bool) -> None:
    body, trailers, headers, end, status, text = BAD_ANSWERS[name]
    async with scripted_server(chop=chop) as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(answer, peer, body, trailers, headers, end)
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await unary(channel, EchoRequest())
        assert caught.value.status is status
        assert text in (caught.value.message or "")
        assert all(not connection.h2.streams for connection in channel._connections)


@pytest.mark.parametrize("name", ["no trailers", "http 503", "half a message", "html"])
async def test_a_stream_that_ends_wrongly_is_no_short_stream(name: str) -> None:
    body, trailers, headers, end, status, _ = BAD_ANSWERS[name]
    async with scripted_server() as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(answer, peer, body, trailers, headers, end)
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await EchoStub(channel).ServerStream(EchoRequest())
        assert caught.value.status is status


async def test_who_goes_on_after_a_broken_message_gets_the_error_again() -> None:
    async with scripted_server() as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(answer, peer, framed(b"\xff\xff") + message("x"), OK, RESPONSE, "")
        async with request(channel, "ServerStream") as stream:
            await stream.send_message(EchoRequest())
            for _ in range(2):
                with anyio.fail_after(5), pytest.raises(GRPCError):
                    await stream.recv_message()


@chopped
@unary
@pytest.mark.parametrize("kind", ["plain", "gzip", "empty"])
async def test_a_right_answer_is_taken_however_it_comes(kind: str, unary: Any, chop: bool) -> None:
    content = b"" if kind == "empty" else EchoReply(text="x").SerializeToString()
    body = framed(GZIP.compress(content), flag=1) if kind == "gzip" else framed(content)
    headers = [*RESPONSE, ("grpc-encoding", "gzip")] if kind == "gzip" else RESPONSE
    async with scripted_server(chop=chop) as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(answer, peer, body, OK, headers, "")
        with anyio.fail_after(5):
            reply = await unary(channel, EchoRequest())
        assert reply.text == ("" if kind == "empty" else "x")
        assert all(not connection.h2.streams for connection in channel._connections)


@unary
async def test_a_message_larger_than_the_windows_arrives(unary: Any) -> None:
    data = bytes(10 << 20)
    async with linked() as ours:
        assert (await unary(ours.channel, EchoRequest(data=data))).data == data
        await ours.check_nothing_is_left()


@unary
async def test_listeners_hear_of_a_unary_call(unary: Any) -> None:
    async def heard(event: Any) -> None:
        events.append(type(event).__name__)

    events: list[str] = []
    async with linked() as ours:
        for kind in (SendRequest, SendMessage, RecvInitialMetadata, RecvMessage):
            listen(ours.channel, kind, heard)
        assert (await unary(ours.channel, EchoRequest(text="x"))).text == "x"
    assert events == ["SendMessage", "SendRequest", "RecvInitialMetadata", "RecvMessage"]


@chopped
async def test_compressed_messages_are_unpacked(chop: bool) -> None:
    packed = framed(GZIP.compress(EchoReply(text="zip").SerializeToString()), flag=1)
    headers = [*RESPONSE, ("grpc-encoding", "gzip")]
    async with scripted_server(chop=chop) as (channel, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(answer, peer, packed + message("plain"), OK, headers, "")
        replies = await EchoStub(channel).ServerStream(EchoRequest())
        assert [reply.text for reply in replies] == ["zip", "plain"]


@chopped
async def test_messages_may_be_cut_anywhere(chop: bool) -> None:
    async with scripted_server(chop=chop) as (channel, peer):

        async def cut() -> None:
            event = await peer.until(h2.events.RequestReceived)
            stream_id = event.stream_id
            assert stream_id is not None
            peer.h2.send_headers(stream_id, RESPONSE)
            many = b"".join(message(str(n)) for n in range(20)) + message()
            peer.h2.send_data(stream_id, many)  # many in one frame
            for octet in message("octets"):
                peer.h2.send_data(stream_id, b"")
                peer.h2.send_data(stream_id, bytes([octet]))  # one in many frames
                await peer.send()
            peer.h2.send_data(stream_id, message("padded"), pad_length=200)
            peer.h2.send_headers(stream_id, OK, end_stream=True)
            await peer.send()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut)
            with anyio.fail_after(5):
                replies = await EchoStub(channel).ServerStream(EchoRequest())
        texts = [*map(str, range(20)), "", "octets", "padded"]
        assert [reply.text for reply in replies] == texts
        (connection,) = channel._connections
        h2_ = connection.h2
        assert h2_._receive_window + h2_._unacknowledged == h2_._local.connection_window_size


@pytest.mark.parametrize("status", [None, Status.ABORTED])
async def test_a_server_may_answer_before_it_has_heard_everything(status: Status | None) -> None:
    async with scripted_server() as (channel, peer):
        async with request(channel, "ClientStream") as stream:
            await stream.send_message(EchoRequest())
            event = await peer.until(h2.events.RequestReceived)
            trailers = OK if status is None else [("grpc-status", str(status.value))]
            assert event.stream_id is not None
            await peer.respond(event.stream_id, message("early"), trailers)
            peer.h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.NO_ERROR)
            await peer.send()
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                if status is None:
                    await stream.send_message(EchoRequest())
                    await stream.end()
                    reply = await stream.recv_message()
                    assert reply is not None
                    assert reply.text == "early"
                else:
                    with pytest.raises(GRPCError) as caught:
                        await stream.send_message(EchoRequest())
                    assert caught.value.status is status
                    await stream.cancel()
        assert (stream.trailing_metadata is not None) == (status is None)


@pytest.mark.parametrize("method", ["Unary", "ClientStream"])
@pytest.mark.parametrize("how", ["trailers", "data", "http"])
async def test_who_waits_to_send_learns_that_the_answer_is_here(how: str, method: str) -> None:
    async with scripted_server() as (channel, peer):

        async def refuse() -> None:
            event = await peer.until(h2.events.DataReceived)
            stream_id = event.stream_id
            assert stream_id is not None
            headers = [(":status", "429")] if how == "http" else RESPONSE
            peer.h2.send_headers(stream_id, headers)
            if how == "trailers":
                peer.h2.send_headers(stream_id, [("grpc-status", "8")], end_stream=True)
            if how == "data":
                peer.h2.send_data(stream_id, b"", end_stream=True)
            await peer.send()

        expected = {
            "trailers": Status.RESOURCE_EXHAUSTED,
            "data": Status.INTERNAL,
            "http": Status.UNAVAILABLE,
        }[how]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refuse)
            with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
                async with request(channel, method) as stream:
                    await stream.send_message(EchoRequest(data=bytes(1_000_000)), end=True)
                    await stream.recv_message()
            assert caught.value.status is expected


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (h2.errors.ErrorCodes.CANCEL, Status.CANCELLED),
        (h2.errors.ErrorCodes.REFUSED_STREAM, Status.UNAVAILABLE),
        (h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, Status.RESOURCE_EXHAUSTED),
        (h2.errors.ErrorCodes.NO_ERROR, Status.INTERNAL),
        (h2.errors.ErrorCodes.INTERNAL_ERROR, Status.INTERNAL),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_a_reset_has_a_status(code: int, status: Status, late: bool) -> None:
    async with scripted_server() as (channel, peer), anyio.create_task_group() as tasks:

        async def reset() -> None:
            # What was refused is asked for once more.
            for _ in range(2 if status is Status.UNAVAILABLE and not late else 1):
                event = await peer.until(h2.events.RequestReceived)
                assert event.stream_id is not None
                if late:
                    await peer.respond(event.stream_id, message("x")[:3])
                peer.h2.reset_stream(event.stream_id, code)
                await peer.send()

        tasks.start_soon(reset)
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await EchoStub(channel).Unary(EchoRequest())
        assert caught.value.status is status


@pytest.mark.parametrize("how", ["reset", "trailers"])
async def test_a_server_that_keeps_the_deadline_itself_makes_no_difference(how: str) -> None:
    async with scripted_server() as (channel, peer):
        with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
            async with request(channel, "Unary", timeout=0.05) as stream:
                await stream.send_message(EchoRequest())
                event = await peer.until(h2.events.RequestReceived)
                assert event.stream_id is not None
                assert any(name == "grpc-timeout" for name, _ in event.headers or ())  # type: ignore[comparison-overlap]
                assert stream.deadline is not None
                await anyio.sleep_until(stream.deadline.at)
                if how == "reset":
                    peer.h2.reset_stream(event.stream_id, h2.errors.ErrorCodes.CANCEL)
                    await peer.send()
                else:
                    await peer.respond(event.stream_id, trailers=[("grpc-status", "4")])
                await anyio.wait_all_tasks_blocked()
                await stream.recv_message()


async def test_a_window_of_nothing_delays_content_but_not_the_request() -> None:
    async with scripted_server(initial_window_size=0) as (channel, peer):

        async def open_window() -> None:
            event = await peer.until(h2.events.RequestReceived)
            stream_id = event.stream_id
            assert stream_id is not None
            got = b""
            while len(got) < len(message("slowly")):
                peer.h2.increment_flow_control_window(1, stream_id)
                await peer.send()
                data = await peer.until(h2.events.DataReceived)
                assert data.data is not None
                got += data.data
            assert got == message("slowly")
            await peer.respond(stream_id, message("ok"), OK)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_window)
            with anyio.fail_after(5):
                reply = await EchoStub(channel).Unary(EchoRequest(text="slowly"))
        assert reply.text == "ok"


async def test_a_window_that_shrinks_below_nothing_is_waited_for() -> None:
    async with scripted_server() as (channel, peer):
        async with request(channel, "Bidi") as stream, anyio.create_task_group() as tasks:
            await stream.send_message(EchoRequest(data=bytes(40_000)))
            await peer.until(h2.events.RequestReceived)
            peer.h2.update_settings({4: 10})  # INITIAL_WINDOW_SIZE
            await peer.send()
            await peer.until(h2.events.SettingsAcknowledged)
            sent = anyio.Event()

            async def send() -> None:
                await stream.send_message(EchoRequest(text="x"), end=True)
                sent.set()

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            assert not sent.is_set()
            peer.h2.increment_flow_control_window(60_000, 1)
            await peer.send()
            with anyio.fail_after(5):
                await sent.wait()
            await stream.cancel()


async def test_messages_that_nobody_takes_are_bounded_by_the_window() -> None:
    async with scripted_server() as (channel, peer):
        async with request(channel, "ServerStream") as stream, anyio.create_task_group() as tasks:
            await stream.send_message(EchoRequest())
            event = await peer.until(h2.events.RequestReceived)
            stream_id = event.stream_id
            assert stream_id is not None
            await peer.respond(stream_id)
            tasks.start_soon(_swallow, stream)
            await anyio.wait_all_tasks_blocked()
            sent = 0
            while (room := peer.h2.local_flow_control_window(stream_id)) > 0:
                size = min(room, 16_000)
                peer.h2.send_data(stream_id, framed(bytes(size - 5)) if size > 5 else bytes(size))
                await peer.send()
                sent += size
                assert sent < 100 << 20, "the window never closes"
            tasks.cancel_scope.cancel()


async def _swallow(stream: Any) -> None:
    await stream.recv_initial_metadata()
    await stream.recv_trailing_metadata()


async def test_calls_that_a_server_goes_away_from_are_unavailable_and_others_finish() -> None:
    async with scripted_server() as (channel, peer):
        results: list[Any] = []

        async def call() -> None:
            try:
                # One that streams requests: it cannot be made once more.
                results.append((await EchoStub(channel).ClientStream([EchoRequest()])).text)
            except GRPCError as error:
                results.append(error.status)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(call)
                for _ in range(3):
                    await peer.until(h2.events.RequestReceived)
                peer.h2.close_connection(last_stream_id=1)
                goaway = peer.h2.data_to_send()
                await peer.send(goaway)
                await anyio.wait_all_tasks_blocked()
                assert results == [Status.UNAVAILABLE] * 2
                # h2 itself says nothing more after GOAWAY.
                block = peer.h2.encoder.encode(RESPONSE)
                trailers = peer.h2.encoder.encode(OK)
                body = message("finished")
                await peer.send(
                    frame(1, 4, 1, block) + frame(0, 0, 1, body) + frame(1, 5, 1, trailers)
                )
        assert results == [Status.UNAVAILABLE, Status.UNAVAILABLE, "finished"]


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big")
    return head + payload


@chopped
async def test_the_end_of_the_connection_is_an_error_but_what_came_before_counts(
    chop: bool,
) -> None:
    async with scripted_server(chop=chop) as (channel, peer):
        texts: list[str] = []
        with anyio.fail_after(5), pytest.raises(ConnectionLost) as caught:
            async with request(channel, "ServerStream") as stream:
                await stream.send_message(EchoRequest())
                event = await peer.until(h2.events.RequestReceived)
                assert event.stream_id is not None
                await peer.respond(event.stream_id, message("a") + message("b") + b"\0")
                await peer.stream.aclose()
                with pytest.raises(ConnectionLost):
                    while (reply := await stream.recv_message()) is not None:
                        texts.append(reply.text)
        assert texts == ["a", "b"]
        assert caught.value.exit is None


async def test_a_server_that_breaks_the_protocol_loses_the_connection() -> None:
    async with scripted_server() as (channel, peer), anyio.create_task_group() as tasks:

        async def break_it() -> None:
            await peer.until(h2.events.RequestReceived)
            await peer.send(frame(0, 0, 99, b"x"))

        tasks.start_soon(break_it)
        with anyio.fail_after(5), pytest.raises(ConnectionLost, match="broke the protocol"):
            await EchoStub(channel).Unary(EchoRequest())


async def test_a_message_that_is_too_large_is_refused_before_it_comes() -> None:
    options = RPCOptions(max_receive_message_size=100)
    async with scripted_server(options=options) as (channel, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, peer, b"\0\0\0\0\x65", None, RESPONSE, "")
            with anyio.fail_after(5), pytest.raises(GRPCError, match="101 octets") as caught:
                await EchoStub(channel).Unary(EchoRequest())
            assert caught.value.status is Status.RESOURCE_EXHAUSTED
        await peer.until(h2.events.StreamReset)
