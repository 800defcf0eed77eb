"""grpclib's events, on both sides."""

from __future__ import annotations

from typing import Any

import pytest
from grpclib import events
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, linked, request


async def test_a_channel_tells_its_listeners_everything_in_order() -> None:
    async with linked() as ours:
        seen: list[events._Event] = []

        async def see(event: Any) -> None:
            seen.append(event)

        for kind in (
            events.SendRequest,
            events.SendMessage,
            events.RecvInitialMetadata,
            events.RecvMessage,
            events.RecvTrailingMetadata,
        ):
            events.listen(ours.channel, kind, see)
        await ours.stub.Unary(EchoRequest(text="x"), metadata={"key": "value"}, timeout=100)
        by_kind = {type(event).__name__: event for event in seen}
        assert list(by_kind) == [
            "SendMessage",
            "SendRequest",
            "RecvInitialMetadata",
            "RecvMessage",
            "RecvTrailingMetadata",
        ] or list(by_kind) == [
            "SendRequest",
            "SendMessage",
            "RecvInitialMetadata",
            "RecvMessage",
            "RecvTrailingMetadata",
        ]
        sent: Any = by_kind["SendRequest"]
        assert sent.metadata["key"] == "value"
        assert sent.method_name == "/testing.echo.Echo/Unary"
        assert sent.deadline.time_remaining() > 0
        assert sent.content_type == "application/grpc"
        message: Any = by_kind["SendMessage"]
        assert message.message.text == "x"
        reply: Any = by_kind["RecvMessage"]
        assert reply.message.text == "x"
        trailing: Any = by_kind["RecvTrailingMetadata"]
        assert (trailing.status, trailing.status_message) == (Status.OK, None)
        assert trailing.status_details is None


async def test_a_server_tells_its_listeners_everything_in_order() -> None:
    async with linked() as ours:
        seen: list[Any] = []

        async def see(event: Any) -> None:
            seen.append(event)

        for kind in (
            events.RecvRequest,
            events.RecvMessage,
            events.SendInitialMetadata,
            events.SendMessage,
            events.SendTrailingMetadata,
        ):
            events.listen(ours.server, kind, see)
        await ours.stub.Unary(EchoRequest(text="x"), metadata={"key": "value"}, timeout=100)
        assert [type(event).__name__ for event in seen] == [
            "RecvRequest",
            "RecvMessage",
            "SendMessage",
            "SendInitialMetadata",
            "SendTrailingMetadata",
        ] or [type(event).__name__ for event in seen] == [
            "RecvRequest",
            "RecvMessage",
            "SendInitialMetadata",
            "SendMessage",
            "SendTrailingMetadata",
        ]
        got = seen[0]
        assert got.metadata["key"] == "value"
        assert got.method_name == "/testing.echo.Echo/Unary"
        assert got.deadline.time_remaining() > 0
        assert got.content_type.startswith("application/grpc")
        assert "pyvider" in got.user_agent
        assert got.peer is not None
        assert seen[-1].status is Status.OK


async def test_listeners_change_what_is_sent_and_received() -> None:
    got: dict[str, Any] = {}

    async def unary(stream: Any) -> None:
        got.update(metadata=dict(stream.metadata), message=(await stream.recv_message()).text)
        await stream.send_message(EchoReply(text="reply"))

    async with linked(Echo(Unary=unary)) as ours:

        async def send_request(event: events.SendRequest) -> None:
            event.metadata["added"] = "by the client"

        async def recv_request(event: events.RecvRequest) -> None:
            event.metadata["more"] = "by the server"

        async def send_initial(event: events.SendInitialMetadata) -> None:
            event.metadata["initial"] = "1"

        async def send_trailing(event: events.SendTrailingMetadata) -> None:
            event.metadata["trailing"] = "2"

        async def recv_message(event: events.RecvMessage) -> None:
            event.message.text += "!"

        events.listen(ours.channel, events.SendRequest, send_request)
        events.listen(ours.server, events.RecvRequest, recv_request)
        events.listen(ours.server, events.SendInitialMetadata, send_initial)
        events.listen(ours.server, events.SendTrailingMetadata, send_trailing)
        events.listen(ours.channel, events.RecvMessage, recv_message)
        events.listen(ours.server, events.RecvMessage, recv_message)
        async with request(ours.channel, "Unary") as stream:
            await stream.send_message(EchoRequest(text="request"))
            reply = await stream.recv_message()
        assert reply is not None
        assert reply.text == "reply!"
        assert got == {
            "metadata": {"added": "by the client", "more": "by the server"},
            "message": "request!",
        }
        assert stream.initial_metadata is not None
        assert stream.initial_metadata["initial"] == "1"
        assert stream.trailing_metadata is not None
        assert stream.trailing_metadata["trailing"] == "2"


async def test_a_listener_may_put_another_handler_in_place() -> None:
    async with linked() as ours:

        async def refuse(stream: Any) -> None:
            raise GRPCError(Status.PERMISSION_DENIED, "not you")

        async def guard(event: events.RecvRequest) -> None:
            event.method_func = refuse

        events.listen(ours.server, events.RecvRequest, guard)
        with pytest.raises(GRPCError, match="not you"):
            await ours.stub.Unary(EchoRequest())


async def test_the_status_is_told_where_a_call_fails() -> None:
    async def unary(stream: Any) -> None:
        raise GRPCError(Status.ABORTED, "why")

    async with linked(Echo(Unary=unary)) as ours:
        seen: list[tuple[Any, Any]] = []

        async def see(event: Any) -> None:
            seen.append((event.status, event.status_message))

        events.listen(ours.channel, events.RecvTrailingMetadata, see)
        events.listen(ours.server, events.SendTrailingMetadata, see)
        with pytest.raises(GRPCError):
            await ours.stub.Unary(EchoRequest())
        assert seen == [(Status.ABORTED, "why")] * 2


@pytest.mark.parametrize(
    "kind",
    [
        events.RecvRequest,
        events.RecvMessage,
        events.SendInitialMetadata,
        events.SendMessage,
        events.SendTrailingMetadata,
    ],
)
async def test_a_listener_of_the_server_that_raises_fails_its_call_alone(
    kind: Any, caplog: Any
) -> None:
    async with linked() as ours:
        broken = True

        async def fail(event: Any) -> None:
            if broken:
                raise ZeroDivisionError

        events.listen(ours.server, kind, fail)
        with pytest.raises(GRPCError) as caught:
            await ours.stub.Unary(EchoRequest())
        assert caught.value.status is Status.UNKNOWN
        broken = False
        await ours.stub.Unary(EchoRequest())
        assert len(ours.server._connections) == 1


@pytest.mark.parametrize(
    "kind",
    [
        events.SendRequest,
        events.SendMessage,
        events.RecvInitialMetadata,
        events.RecvMessage,
        events.RecvTrailingMetadata,
    ],
)
async def test_a_listener_of_the_channel_that_raises_fails_its_call_alone(kind: Any) -> None:
    async with linked() as ours:
        broken = True

        async def fail(event: Any) -> None:
            if broken:
                raise ZeroDivisionError

        events.listen(ours.channel, kind, fail)
        with pytest.raises(ZeroDivisionError):
            await ours.stub.Unary(EchoRequest())
        broken = False
        await ours.stub.Unary(EchoRequest())
        await ours.check_nothing_is_left()
