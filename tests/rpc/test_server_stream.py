"""The server's side of a call: grpclib's methods, and clients that misbehave."""

from __future__ import annotations

from typing import Any

import anyio
import h2.errors
import h2.events
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError

from pyvider_rpcplugin.rpc import RPCOptions, Server
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, ScriptedPeer, framed, linked, message, request, scripted_client

chopped = pytest.mark.parametrize("chop", [False, True], ids=["whole", "chopped"])


async def outcome(peer: ScriptedPeer, stream_id: int) -> tuple[dict[str, str], bytes]:
    """How the server answers a call: all its fields, and the content."""
    fields: dict[str, str] = {}
    content = b""
    while True:
        event = await peer.until(h2.events.Event)
        if getattr(event, "stream_id", None) != stream_id:
            continue
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            fields.update({str(name): str(value) for name, value in event.headers or ()})
        elif isinstance(event, h2.events.DataReceived):
            content += event.data or b""
            peer.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            if isinstance(event, h2.events.StreamReset):
                fields["reset"] = str(int(event.error_code or 0))
            return fields, content


# --- when the methods may be called ----------------------------------------------------------------


async def test_methods_out_of_turn_say_so() -> None:
    done = False

    async def unary(stream: Any) -> None:
        nonlocal done
        assert "Unary" in repr(stream)
        with pytest.raises(ProtocolError, match="requires a single message"):
            await stream.send_trailing_metadata()
        assert (await stream.recv_message()).text == "x"
        assert await stream.recv_message() is None
        await stream.send_initial_metadata()
        with pytest.raises(ProtocolError, match="already sent"):
            await stream.send_initial_metadata()
        await stream.send_message(EchoReply())
        with pytest.raises(ProtocolError, match="already sent"):
            await stream.send_message(EchoReply())
        await stream.send_trailing_metadata()
        with pytest.raises(ProtocolError, match="already sent"):
            await stream.send_trailing_metadata()
        with pytest.raises(ProtocolError, match="already sent"):
            await stream.send_initial_metadata()
        done = True

    async with linked(Echo(Unary=unary)) as ours:
        await ours.stub.Unary(EchoRequest(text="x"))
        await ours.check_nothing_is_left()
    assert done


async def test_a_handler_may_say_the_status_itself() -> None:
    async def server_stream(stream: Any) -> None:
        await stream.send_message(EchoReply(text="one"))
        await stream.send_trailing_metadata(
            status=Status.ABORTED, status_message="why", metadata={"key": "value"}
        )
        with pytest.raises(ProtocolError):
            await stream.send_message(EchoReply())

    async with linked(Echo(ServerStream=server_stream)) as ours:
        with pytest.raises(GRPCError, match="why") as caught:
            async with request(ours.channel, "ServerStream") as stream:
                await stream.send_message(EchoRequest())
                reply = await stream.recv_message()
                assert reply is not None
                assert reply.text == "one"
                assert await stream.recv_message() is None
        assert caught.value.status is Status.ABORTED
        assert stream.trailing_metadata is not None
        assert stream.trailing_metadata["key"] == "value"
        await ours.check_nothing_is_left()


async def test_a_handler_may_send_its_headers_first() -> None:
    proceed = anyio.Event()

    async def unary(stream: Any) -> None:
        await stream.send_initial_metadata(metadata={"key": "early"})
        await proceed.wait()
        await stream.send_message(EchoReply())

    async with linked(Echo(Unary=unary)) as ours:
        with anyio.fail_after(5):
            async with request(ours.channel, "Unary") as stream:
                await stream.send_message(EchoRequest())
                await stream.recv_initial_metadata()
                assert stream.initial_metadata is not None
                assert stream.initial_metadata["key"] == "early"
                proceed.set()
                await stream.recv_message()


async def test_a_handler_may_cancel_its_call() -> None:
    async def bidi(stream: Any) -> None:
        await stream.recv_message()
        await stream.cancel()
        with pytest.raises(ProtocolError, match="already cancelled"):
            await stream.cancel()
        with pytest.raises(GRPCError):
            await stream.recv_message()
        with pytest.raises(GRPCError):
            await stream.send_message(EchoReply())

    async with linked(Echo(Bidi=bidi)) as ours:
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            async with request(ours.channel, "Bidi") as stream:
                await stream.send_message(EchoRequest())
                await stream.recv_message()
        assert caught.value.status is Status.CANCELLED
        await ours.check_nothing_is_left()


async def test_two_tasks_of_a_handler_may_send_and_receive_but_not_the_same() -> None:
    async def bidi(stream: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.recv_message)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await stream.recv_message()
            await stream.send_message(EchoReply(text="both"))

    async with linked(Echo(Bidi=bidi)) as ours:
        with anyio.fail_after(5):
            async with request(ours.channel, "Bidi") as stream:
                await stream.send_request()
                reply = await stream.recv_message()
                assert reply is not None
                assert reply.text == "both"
                await stream.send_message(EchoRequest(), end=True)
                assert await stream.recv_message() is None


# --- what a client may not do, or rarely does -------------------------------------------------------


BAD_REQUESTS = {
    # name: (fields, body, expected fields)
    "get": ({":method": "GET"}, b"", {":status": "405"}),
    "no content-type": ({"content-type": ""}, b"", {":status": "415", "grpc-status": "2"}),
    "json": ({"content-type": "application/json"}, b"", {":status": "415"}),
    "other format": ({"content-type": "application/grpc+json"}, b"", {":status": "415"}),
    "almost grpc": ({"content-type": "application/grpcx"}, b"", {":status": "415"}),
    "unknown method": ({":path": "/a/b"}, b"", {":status": "200", "grpc-status": "12"}),
    "no method at all": ({":path": "*"}, b"", {"grpc-status": "12"}),
    "bad timeout": ({"grpc-timeout": "soon"}, b"", {"grpc-status": "13"}),
    "unknown encoding": ({"grpc-encoding": "br"}, b"", {"grpc-status": "12"}),
    "no message": ({}, b"", {"grpc-status": "13"}),
    "half a message": ({}, message("x")[:-1], {"grpc-status": "13"}),
    "garbage": ({}, framed(b"\xff\xff"), {"grpc-status": "13"}),
    "flag without encoding": ({}, message("x", flag=1), {"grpc-status": "13"}),
    "not gzip": ({"grpc-encoding": "gzip"}, message("x", flag=1), {"grpc-status": "13"}),
    "no time": ({"grpc-timeout": "0n"}, message("x"), None),
}


@chopped
@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_wrong_request_has_an_answer_and_harms_nobody(name: str, chop: bool) -> None:
    fields, body, expected = BAD_REQUESTS[name]
    async with scripted_client(chop=chop) as (_, peer):
        stream_id = await peer.request(body=body, fields=fields)
        got, _ = await outcome(peer, stream_id)
        if expected is not None:
            assert expected.items() <= got.items()
        if name == "unknown encoding":
            assert got["grpc-accept-encoding"] == "identity,deflate,gzip"
        stream_id = await peer.request(body=message("fine"))
        got, content = await outcome(peer, stream_id)
        assert got["grpc-status"] == "0"
        assert content == message("fine")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/grpc",
        "application/grpc+proto",
        "application/grpc; charset=utf-8",
        "application/grpc+proto;x=y",
        "Application/GRPC",
    ],
)
async def test_all_ways_to_write_the_content_type_are_understood(content_type: str) -> None:
    async with scripted_client() as (_, peer):
        stream_id = await peer.request(body=message("x"), fields={"content-type": content_type})
        fields, _ = await outcome(peer, stream_id)
        assert fields["grpc-status"] == "0"
        assert fields["content-type"].startswith("application/grpc")


async def test_a_request_that_is_refused_is_not_read_to_its_end() -> None:
    async with scripted_client() as (_, peer):
        stream_id = await peer.request(end=False, fields={":path": "/a/b"})
        event = await peer.until(h2.events.StreamReset)
        assert event.stream_id == stream_id
        assert event.error_code == h2.errors.ErrorCodes.NO_ERROR


@chopped
async def test_requests_may_be_cut_anywhere(chop: bool) -> None:
    async with scripted_client(chop=chop) as (server, peer):
        stream_id = await peer.request("ClientStream", end=False)
        peer.h2.send_data(stream_id, b"".join(message(c) for c in "many") + message())
        for octet in message("octets"):
            peer.h2.send_data(stream_id, b"")
            peer.h2.send_data(stream_id, bytes([octet]))
        peer.h2.send_data(stream_id, message("padded"), pad_length=99)
        peer.h2.send_headers(stream_id, [("some", "trailers")], end_stream=True)
        await peer.send()
        fields, content = await outcome(peer, stream_id)
        assert fields["grpc-status"] == "0"
        assert EchoReply.FromString(content[5:]).text == "manyoctetspadded"
        (connection,) = server._connections
        engine = connection._connection.h2
        full = engine._local.connection_window_size
        assert engine._receive_window + engine._unacknowledged == full


@pytest.mark.parametrize("how", ["reset", "goodbye"])
async def test_a_handler_is_cancelled_when_its_client_gives_up(how: str, caplog: Any) -> None:
    started, ended = anyio.Event(), anyio.Event()

    async def bidi(stream: Any) -> None:
        started.set()
        try:
            async with anyio.create_task_group() as tasks:  # its errors come with cancellation
                tasks.start_soon(stream.recv_message)
                tasks.start_soon(anyio.Event().wait)
                await anyio.Event().wait()
        finally:
            ended.set()

    async with scripted_client(Echo(Bidi=bidi)) as (_, peer):
        stream_id = await peer.request("Bidi", end=False)
        with anyio.fail_after(5):
            await started.wait()
            await anyio.wait_all_tasks_blocked()
            if how == "reset":
                peer.h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
                await peer.send()
            else:
                await peer.stream.aclose()
            await ended.wait()
            if how == "reset":
                stream_id = await peer.request(body=message("fine"))
                fields, _ = await outcome(peer, stream_id)
                assert fields["grpc-status"] == "0"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_call_that_is_given_up_at_once_never_runs() -> None:
    runs = 0

    async def unary(stream: Any) -> None:
        nonlocal runs
        runs += 1

    async with scripted_client(Echo(Unary=unary)) as (server, peer):
        for _ in range(10):
            stream_id = peer.h2.get_next_available_stream_id()
            headers = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/testing.echo.Echo/Unary"),
                ("content-type", "application/grpc"),
            ]
            peer.h2.send_headers(stream_id, headers)
            peer.h2.reset_stream(stream_id)
        await peer.send()
        stream_id = await peer.request("ServerStream", message())
        await outcome(peer, stream_id)
        (connection,) = server._connections
        assert not connection._calls
    assert runs == 0


async def test_handlers_that_outlive_their_calls_are_bounded() -> None:
    release = anyio.Event()

    async def unary(stream: Any) -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    server = Server([Echo(Unary=unary)], options=RPCOptions(max_concurrent_streams=2))
    async with scripted_client(server=server) as (_, peer):
        for _ in range(4):
            stream_id = await peer.request(end=False)
            await anyio.wait_all_tasks_blocked()
            peer.h2.reset_stream(stream_id)
            await peer.send()
        stream_id = await peer.request("ServerStream", message())
        fields, _ = await outcome(peer, stream_id)
        assert fields["grpc-status"] == "14"
        release.set()
        await anyio.wait_all_tasks_blocked()
        stream_id = await peer.request("ServerStream", message())
        fields, _ = await outcome(peer, stream_id)
        assert fields["grpc-status"] == "0"


async def test_a_stream_too_many_is_refused() -> None:
    async def unary(stream: Any) -> None:
        await anyio.Event().wait()

    server = Server([Echo(Unary=unary)], options=RPCOptions(max_concurrent_streams=1))
    async with scripted_client(server=server) as (_, peer):
        await peer.until(h2.events.SettingsAcknowledged)
        first = await peer.request()
        peer.h2.max_outbound_frame_size = 16384
        peer.h2.remote_settings[3] = 100  # It ignores what the server allows.
        peer.h2.remote_settings.acknowledge()
        second = await peer.request()
        fields, _ = await outcome(peer, second)
        assert fields["reset"] == str(int(h2.errors.ErrorCodes.REFUSED_STREAM))
        peer.h2.reset_stream(first)
        await peer.send()


async def test_a_handler_that_leaves_a_large_request_unread_gives_its_window_back() -> None:
    async def client_stream(stream: Any) -> None:
        await stream.recv_message()
        await anyio.wait_all_tasks_blocked()
        await stream.send_message(EchoReply())

    async with scripted_client(Echo(ClientStream=client_stream)) as (server, peer):
        for _ in range(3):
            stream_id = await peer.request("ClientStream", message("x"), end=False)
            for _ in range(3):
                peer.h2.send_data(stream_id, bytes(16_384))
                await peer.send()
            await outcome(peer, stream_id)
        await anyio.wait_all_tasks_blocked()
        (connection,) = server._connections
        engine = connection._connection.h2
        full = engine._local.connection_window_size
        assert engine._receive_window + engine._unacknowledged == full


async def test_a_handler_waits_for_the_window_of_its_client() -> None:
    async with scripted_client(initial_window_size=7) as (_, peer):
        stream_id = await peer.request(body=message("waits for the window"))
        await peer.until(h2.events.ResponseReceived)
        content = b""
        expected = message("waits for the window")
        while len(content) < len(expected):
            if content:
                peer.h2.increment_flow_control_window(7, stream_id)
                await peer.send()
            event = await peer.until(h2.events.DataReceived)
            content += event.data or b""
        assert content == expected
        await peer.until(h2.events.TrailersReceived)


async def test_a_handler_that_is_cancelled_in_the_middle_of_a_message_resets_its_stream() -> None:
    async with scripted_client(initial_window_size=7) as (_, peer):
        fields = {"grpc-timeout": "20m"}
        stream_id = await peer.request(body=message("does not fit"), fields=fields)
        got, content = await outcome(peer, stream_id)
        assert got.get("reset") == str(int(h2.errors.ErrorCodes.CANCEL))
        assert content == message("does not fit")[:7]


async def test_a_message_over_the_limit_is_refused_before_it_comes() -> None:
    server = Server([Echo()], options=RPCOptions(max_receive_message_size=100))
    async with scripted_client(server=server) as (_, peer):
        stream_id = await peer.request(body=b"\0\0\0\0\x65", end=False)
        fields, _ = await outcome(peer, stream_id)
        assert fields["grpc-status"] == str(Status.RESOURCE_EXHAUSTED.value)


async def test_the_client_is_told_the_deadline_has_passed() -> None:
    async def unary(stream: Any) -> None:
        await anyio.Event().wait()

    async with scripted_client(Echo(Unary=unary)) as (_, peer):
        for timeout in ("1m", "0n"):
            stream_id = await peer.request(body=message(), fields={"grpc-timeout": timeout})
            fields, _ = await outcome(peer, stream_id)
            assert fields["grpc-status"] == str(Status.DEADLINE_EXCEEDED.value)
