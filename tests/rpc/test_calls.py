"""Channel and server together: all kinds of calls, on every kind of stream."""

from __future__ import annotations

import logging
import math
from typing import Any

import anyio
import h2.events
import pytest
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError

from pyvider_rpcplugin.rpc import (
    Channel,
    Deadline,
    DeadlineExceeded,
    RawCodec,
    RPCOptions,
    Server,
)
from pyvider_rpcplugin.rpc._codecs import CodecHandler
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import LINKS, UNARY, Echo, framed, linked, request, scripted_client

links = pytest.mark.parametrize("link", LINKS)


@links
async def test_generated_stubs_make_all_four_kinds_of_calls(link: str) -> None:
    async with linked(link=link) as ours:
        stub = ours.stub
        with anyio.fail_after(5):
            assert (await stub.Unary(EchoRequest(text="one"))).text == "one"
            replies = await stub.ServerStream(EchoRequest(text="x", count=3))
            assert [reply.index for reply in replies] == [0, 1, 2]
            joined = await stub.ClientStream([EchoRequest(text=c) for c in "abc"])
            assert (joined.text, joined.index) == ("abc", 3)
            assert (await stub.ClientStream([])).index == 0
            assert [r.text for r in await stub.Bidi([EchoRequest(text=c) for c in "ab"])] == [
                "a",
                "b",
            ]
            assert await stub.Bidi([]) == []
        await ours.check_nothing_is_left()


@links
@pytest.mark.parametrize("size", [0, 1, 16_378, 65_530, 1 << 20, 5_000_000])
async def test_messages_of_every_size_pass(link: str, size: int) -> None:
    data = bytes(size)
    async with linked(link=link) as ours:
        with anyio.fail_after(5):
            assert (await ours.stub.Unary(EchoRequest(data=data))).data == data
            async with ours.stub.Bidi.open() as stream:
                for _ in range(2):
                    await stream.send_message(EchoRequest(data=data))
                    reply = await stream.recv_message()
                    assert reply is not None
                    assert reply.data == data
                await stream.end()
        await ours.check_nothing_is_left()


async def test_a_message_larger_than_all_windows_passes() -> None:
    data = bytes(40 << 20)
    async with linked(link="unix") as ours:
        with anyio.fail_after(20):
            assert len((await ours.stub.Unary(EchoRequest(data=data))).data) == len(data)
        await ours.check_nothing_is_left()


@links
async def test_five_hundred_callers_share_one_channel(link: str) -> None:
    async with linked(link=link) as ours:
        answers: dict[str, str] = {}

        async def call(text: str) -> None:
            answers[text] = (await ours.stub.Unary(EchoRequest(text=text))).text

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(500):
                    tasks.start_soon(call, str(number))
        assert answers == {str(n): str(n) for n in range(500)}
        assert len(ours.channel._connections) == 1
        await ours.check_nothing_is_left()


async def test_more_callers_than_the_server_allows_take_turns() -> None:
    most = 0
    running = 0
    gate = anyio.Event()

    async def unary(stream: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        await stream.recv_message()
        running -= 1
        await stream.send_message(EchoReply())

    options = RPCOptions(max_concurrent_streams=3)
    async with linked(Echo(Unary=unary), server_options=options) as ours:
        done = 0

        async def call() -> None:
            nonlocal done
            await ours.stub.Unary(EchoRequest())
            done += 1

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                assert most == 3
                assert len(ours.channel._pending) == 17
                gate.set()
        assert (most, done) == (3, 20)
        await ours.check_nothing_is_left()


async def test_a_caller_in_the_queue_may_give_up_and_those_behind_go_on() -> None:
    gate = anyio.Event()

    async def unary(stream: Any) -> None:
        await stream.recv_message()
        await gate.wait()
        await stream.send_message(EchoReply())

    options = RPCOptions(max_concurrent_streams=1)
    async with linked(Echo(Unary=unary), server_options=options) as ours:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ours.stub.Unary, EchoRequest())
                await anyio.wait_all_tasks_blocked()
                given_up = anyio.CancelScope()
                tasks.start_soon(_call_in, given_up, ours)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(DeadlineExceeded):
                    await ours.stub.Unary(EchoRequest(), timeout=0.01)
                tasks.start_soon(ours.stub.Unary, EchoRequest())
                await anyio.wait_all_tasks_blocked()
                given_up.cancel()
                gate.set()
        await ours.check_nothing_is_left()


async def _call_in(scope: anyio.CancelScope, ours: Any) -> None:
    with scope:
        await ours.stub.Unary(EchoRequest())


async def test_the_place_of_a_call_that_is_over_is_free_though_its_block_is_not_left() -> None:
    options = RPCOptions(max_concurrent_streams=1)
    async with linked(server_options=options) as ours:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                async with ours.stub.Unary.open() as stream:
                    await stream.send_message(EchoRequest())
                    tasks.start_soon(ours.stub.Unary, EchoRequest())
                    await stream.recv_message()
                    await stream.recv_trailing_metadata()
                    await anyio.wait_all_tasks_blocked()
                    assert not ours.channel._pending
        await ours.check_nothing_is_left()


# --- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
async def test_the_status_that_a_handler_raises_reaches_the_caller(method: str) -> None:
    async def handler(stream: Any) -> None:
        raise GRPCError(Status.NOT_FOUND, "nöt hére 🤷", [ErrorInfo(reason="r", domain="d")])

    async with linked(Echo(**{method: handler})) as ours:
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            async with request(ours.channel, method) as stream:
                await stream.send_message(EchoRequest(), end=True)
                await stream.recv_message()
                await stream.recv_trailing_metadata()
        assert caught.value.status is Status.NOT_FOUND
        assert caught.value.message == "nöt hére 🤷"
        assert [detail.reason for detail in caught.value.details] == ["r"]
        await ours.check_nothing_is_left()


async def test_an_exception_of_a_handler_is_unknown_and_names_its_kind(caplog: Any) -> None:
    async def unary(stream: Any) -> None:
        msg = "surprise"
        raise LookupError(msg)

    async with linked(Echo(Unary=unary)) as ours:
        with pytest.raises(GRPCError) as caught:
            await ours.stub.Unary(EchoRequest())
        assert caught.value.status is Status.UNKNOWN
        assert caught.value.message == "LookupError: surprise"
        assert "rpc.handler.failed" in caplog.text
        await ours.check_nothing_is_left()


async def test_an_exception_may_say_what_cannot_be_encoded(monkeypatch: Any) -> None:
    # Reports of the test run could not say it either.
    monkeypatch.setattr(logging.getLogger("pyvider_rpcplugin.rpc._server"), "disabled", True)

    async def unary(stream: Any) -> None:
        raise FileNotFoundError("\udcff" + 5000 * "x")

    async with linked(Echo(Unary=unary)) as ours:
        with pytest.raises(GRPCError) as caught:
            await ours.stub.Unary(EchoRequest())
        assert caught.value.message is not None
        assert caught.value.message.startswith("FileNotFoundError: ?xxx")
        assert len(caught.value.message) < 2000
        await ours.check_nothing_is_left()


async def test_an_error_in_a_task_group_of_a_handler_is_its_error() -> None:
    async def child() -> None:
        raise GRPCError(Status.ABORTED, "child")

    async def unary(stream: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            await anyio.Event().wait()

    async with linked(Echo(Unary=unary)) as ours:
        with pytest.raises(GRPCError, match="child"):
            await ours.stub.Unary(EchoRequest())


async def test_a_unary_handler_without_an_answer_is_an_error() -> None:
    async def unary(stream: Any) -> None:
        await stream.recv_message()

    async with linked(Echo(Unary=unary)) as ours:
        with pytest.raises(GRPCError, match="without sending") as caught:
            await ours.stub.Unary(EchoRequest())
        assert caught.value.status is Status.UNKNOWN


async def test_a_method_or_service_that_is_not_there_is_unimplemented() -> None:
    async with linked() as ours:
        for path in ("/testing.echo.Echo/None", "/other.Service/Unary", "/"):
            from grpclib.client import UnaryUnaryMethod

            method = UnaryUnaryMethod(ours.channel, path, EchoRequest, EchoReply)
            with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
                await method(EchoRequest())
            assert caught.value.status is Status.UNIMPLEMENTED
        await ours.check_nothing_is_left()


async def test_details_that_cannot_be_encoded_fail_the_call_alone() -> None:
    async def unary(stream: Any) -> None:
        raise GRPCError(Status.ABORTED, "why", "these are no details")

    async with linked(Echo(Unary=unary)) as ours:
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await ours.stub.Unary(EchoRequest())
        assert caught.value.status is Status.INTERNAL
        assert len(await ours.stub.ServerStream(EchoRequest(count=2))) == 2


async def test_an_answer_of_the_wrong_type_fails_the_call_alone() -> None:
    async def unary(stream: Any) -> None:
        await stream.send_message("no message")

    async with linked(Echo(Unary=unary)) as ours:
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await ours.stub.Unary(EchoRequest())
        assert caught.value.status is Status.UNKNOWN
        with pytest.raises(TypeError):
            await ours.stub.Unary("no message")  # type: ignore[arg-type]
        assert len(await ours.stub.ServerStream(EchoRequest(count=2))) == 2


# --- metadata ------------------------------------------------------------------------------------


@links
async def test_metadata_goes_both_ways(link: str) -> None:
    got: dict[str, Any] = {}

    async def unary(stream: Any) -> None:
        got.update(metadata=stream.metadata, agent=stream.user_agent, peer=stream.peer)
        await stream.recv_message()
        await stream.send_initial_metadata(metadata={"initial": "1", "i-bin": b"\0\xff"})
        await stream.send_message(EchoReply())
        await stream.send_trailing_metadata(metadata=[("trailing", "2"), ("t-bin", b"")])

    async with linked(Echo(Unary=unary), link=link) as ours:
        pairs = [
            ("key", "value"),
            ("key", "again"),
            ("empty", ""),
            ("k-bin", b"\1\2"),
            ("k-bin", b""),
        ]
        with anyio.fail_after(5):
            async with request(ours.channel, "Unary", metadata=pairs) as stream:
                assert stream.initial_metadata is None
                assert stream.trailing_metadata is None
                assert stream.peer is None
                await stream.send_message(EchoRequest())
                assert stream.peer is not None
                assert stream.peer.cert() is None
                stream.peer.addr()
                await stream.recv_message()
            assert stream.initial_metadata is not None
            assert dict(stream.initial_metadata) == {"initial": "1", "i-bin": b"\0\xff"}
            assert stream.trailing_metadata is not None
            assert dict(stream.trailing_metadata) == {"trailing": "2", "t-bin": b""}
        assert list(got["metadata"].items()) == pairs
        assert "pyvider-rpcplugin" in got["agent"]
        assert got["peer"].cert() is None


@pytest.mark.parametrize("where", ["request", "initial", "trailing", "message"])
@pytest.mark.parametrize("what", ["long", "many"])
async def test_metadata_larger_than_the_peer_takes_costs_one_call(where: str, what: str) -> None:
    big = {"key": "x" * 70_000} if what == "long" else {str(n): "" for n in range(600)}
    proceed, other = anyio.Event(), anyio.Event()

    async def unary(stream: Any) -> None:
        await stream.recv_message()
        if where == "initial":
            await stream.send_initial_metadata(metadata=big)
        if where == "message":
            raise GRPCError(Status.ABORTED, "ä" * 20_000)
        await stream.send_message(EchoReply())
        await stream.send_trailing_metadata(metadata=big if where == "trailing" else None)

    async def server_stream(stream: Any) -> None:
        await stream.recv_message()
        other.set()
        await proceed.wait()
        await stream.send_message(EchoReply(text="unharmed"))

    async with linked(Echo(Unary=unary, ServerStream=server_stream)) as ours:
        texts = []

        async def run_other() -> None:
            texts.extend([r.text for r in await ours.stub.ServerStream(EchoRequest())])

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_other)
                await other.wait()
                metadata = big if where == "request" else None
                with pytest.raises(GRPCError) as caught:
                    await ours.stub.Unary(EchoRequest(), metadata=metadata)
                expected = Status.ABORTED if where == "message" else Status.RESOURCE_EXHAUSTED
                assert caught.value.status is expected
                proceed.set()
        assert texts == ["unharmed"]


@pytest.mark.parametrize("metadata", [{"Bad Key": "x"}, {"key": "ä"}, {"key-bin": "text"}])
async def test_metadata_that_cannot_be_sent_is_an_error_before_anything_is_sent(
    metadata: Any,
) -> None:
    async with linked() as ours:
        with pytest.raises((ValueError, TypeError)):
            await ours.stub.Unary(EchoRequest(), metadata=metadata)
        await ours.check_nothing_is_left()


# --- deadlines -----------------------------------------------------------------------------------


async def never(stream: Any) -> None:
    await anyio.Event().wait()


@pytest.mark.parametrize("method", ["Unary", "ServerStream", "ClientStream", "Bidi"])
async def test_a_call_ends_at_its_deadline_and_so_does_its_handler(method: str) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def handler(stream: Any) -> None:
        begun.set()
        try:
            assert stream.deadline.time_remaining() <= 0.05
            await anyio.Event().wait()
        finally:
            ended.set()

    async with linked(Echo(**{method: handler})) as ours:
        with anyio.fail_after(5):
            # A deadline may have passed before there is a handler to end.
            while not begun.is_set():
                with pytest.raises(TimeoutError) as caught:
                    async with request(ours.channel, method, timeout=0.05) as stream:
                        assert stream.deadline is not None
                        await stream.send_message(EchoRequest(), end=True)
                        await stream.recv_message()
                assert isinstance(caught.value, DeadlineExceeded)
            await ended.wait()
            await ours.check_nothing_is_left()


@pytest.mark.parametrize("timeout", [0, -1, -1e300, 1e-12, math.nan])
async def test_a_deadline_that_has_passed_fails_the_call_at_once(timeout: float) -> None:
    async with linked() as ours:
        with anyio.fail_after(5):
            with pytest.raises(DeadlineExceeded):
                async with request(ours.channel, "Unary", timeout=timeout) as stream:
                    await stream.send_message(EchoRequest())
                    while True:
                        await stream.recv_message()
        await ours.check_nothing_is_left()


@pytest.mark.parametrize("timeout", [1e9, 1e15, 1e300, math.inf])
async def test_a_deadline_may_be_as_far_away_as_one_likes(timeout: float) -> None:
    async with linked() as ours:
        assert (await ours.stub.Unary(EchoRequest(text="x"), timeout=timeout)).text == "x"


async def test_a_deadline_of_grpclib_is_taken() -> None:
    async with linked(Echo(Unary=never)) as ours:
        from grpclib.metadata import Deadline as GrpclibDeadline

        with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
            async with request(
                ours.channel, "Unary", deadline=GrpclibDeadline.from_timeout(0.01)
            ) as stream:
                await stream.send_message(EchoRequest())
                await stream.recv_message()


async def test_the_deadline_of_a_handler_is_that_of_the_calls_that_it_makes() -> None:
    async with linked(Echo(Unary=never)) as inner:
        seen: list[Any] = []

        async def relay(stream: Any) -> None:
            await stream.recv_message()
            async with request(inner.channel, "Unary", timeout=1000) as call:
                seen.append(call.deadline)
            async with request(inner.channel, "Unary") as call:
                seen.append(call.deadline)
            seen.append(stream.deadline)
            await inner.stub.Unary(EchoRequest())

        async with linked(Echo(Unary=relay)) as outer:
            with anyio.fail_after(5):
                # A deadline may have passed before there is a handler that makes calls.
                while len(seen) < 3:
                    seen.clear()
                    with pytest.raises(DeadlineExceeded):
                        await outer.stub.Unary(EchoRequest(), timeout=0.05)
            assert seen[0] is seen[1] is seen[2]
            async with request(outer.channel, "Unary") as call:
                assert call.deadline is None  # It ended with the handler.


async def test_a_caller_that_never_has_to_wait_still_meets_its_deadline() -> None:
    async with linked() as ours:
        async with request(ours.channel, "ServerStream") as stream:
            await stream.send_message(EchoRequest(count=250))
            assert await stream.recv_message() is not None
            await anyio.wait_all_tasks_blocked()
            stream._due = Deadline.from_timeout(-1)
            stream._open_messages._deadline = stream._due
            with pytest.raises(DeadlineExceeded):
                async for _ in stream:
                    pass


# --- limits, compression, codecs -----------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_message_over_the_limit_is_refused_by_its_receiver(side: str) -> None:
    options = RPCOptions(max_receive_message_size=1000)
    sides = {f"{'channel' if side == 'client' else 'server'}_options": options}
    async with linked(**sides) as ours:  # type: ignore[arg-type]
        with anyio.fail_after(5):
            assert (await ours.stub.Unary(EchoRequest(data=bytes(900)))).data
            for size in (1001, 10_000_000):
                with pytest.raises(GRPCError) as caught:
                    await ours.stub.Unary(EchoRequest(data=bytes(size)))
                assert caught.value.status is Status.RESOURCE_EXHAUSTED
        await ours.check_nothing_is_left()


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_message_over_the_limit_is_refused_by_its_sender(side: str) -> None:
    options = RPCOptions(max_send_message_size=1000)
    sides = {f"{'channel' if side == 'client' else 'server'}_options": options}
    async with linked(**sides) as ours:  # type: ignore[arg-type]
        with anyio.fail_after(5), pytest.raises(GRPCError, match="at most 1000") as caught:
            await ours.stub.Unary(EchoRequest(data=bytes(1001)))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        await ours.check_nothing_is_left()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
@pytest.mark.parametrize("sides", [(True, False), (False, True), (True, True)])
async def test_messages_can_be_compressed_either_way(name: Any, sides: tuple[bool, bool]) -> None:
    on, off = RPCOptions(compression=name), RPCOptions()
    data = bytes(300_000)
    async with linked(
        channel_options=on if sides[0] else off, server_options=on if sides[1] else off
    ) as ours:
        with anyio.fail_after(5):
            assert (await ours.stub.Unary(EchoRequest(data=data))).data == data
            assert (await ours.stub.Unary(EchoRequest())).data == b""
            replies = await ours.stub.Bidi([EchoRequest(data=data)] * 3)
            assert [reply.data == data for reply in replies] == [True] * 3
        await ours.check_nothing_is_left()


async def test_a_bomb_is_refused() -> None:
    limited = RPCOptions(max_receive_message_size=1_000_000)
    async with linked(
        channel_options=RPCOptions(compression="gzip"), server_options=limited
    ) as ours:
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await ours.stub.Unary(EchoRequest(data=bytes(50_000_000)))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED


async def test_a_handler_chooses_the_compression_of_its_answer() -> None:
    sent: list[str] = []

    async def unary(stream: Any) -> None:
        with pytest.raises(ValueError, match="unknown encoding"):
            stream.set_compression("zstd")
        request = await stream.recv_message()
        stream.set_compression(request.text or None)
        await stream.send_initial_metadata()
        with pytest.raises(ProtocolError):
            stream.set_compression("gzip")
        encoding = stream._messages.encoding_out
        sent.append("" if encoding is None else encoding.name)
        await stream.send_message(EchoReply(data=bytes(1000)))

    async with linked(Echo(Unary=unary)) as ours:
        for name in ("gzip", "deflate", ""):
            assert (await ours.stub.Unary(EchoRequest(text=name))).data == bytes(1000)
    assert sent == ["gzip", "deflate", ""]


class Repr(CodecBase):
    """A format of its own, for whatever `repr` can write."""

    __content_subtype__ = "repr"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return repr(message).encode()

    def decode(self, data: bytes, message_type: Any) -> Any:
        return eval(data)


class Doubler:
    """A service that no code generator made."""

    def __mapping__(self) -> dict[str, Any]:
        from grpclib.const import Cardinality, Handler

        return {"/own.Doubler/Double": Handler(self.double, Cardinality.UNARY_UNARY, int, int)}

    async def double(self, stream: Any) -> None:
        await stream.send_message(2 * await stream.recv_message())


async def test_other_formats_than_protobuf_can_be_used() -> None:
    from grpclib.client import UnaryUnaryMethod

    server = Server([Doubler()], codec=Repr())
    async with linked(server=server, codec=Repr()) as ours:
        double = UnaryUnaryMethod(ours.channel, "/own.Doubler/Double", int, int)
        assert await double(21) == 42
    async with linked(server=Server([Doubler()])) as ours:
        with pytest.raises(GRPCError, match="format 'repr'"):
            await said(ours.channel, "/own.Doubler/Double", 1, Repr())


async def said(channel: Channel, path: str, message: Any, codec: CodecBase) -> Any:
    """Make a unary call whose messages have a format of their own."""
    async with channel.request(
        path, Cardinality.UNARY_UNARY, type(message), type(message), codec=codec
    ) as stream:
        await stream.send_message(message)
        return await stream.recv_message()


async def test_one_method_can_have_formats_of_its_own_beside_others() -> None:
    class Upper:
        def __mapping__(self) -> dict[str, Any]:
            codecs = {name: RawCodec(name) for name in ("plain", "proto")}
            kind = Cardinality.UNARY_UNARY
            return {"/own.Upper/Say": CodecHandler.make(self.say, kind, codecs)}

        async def say(self, stream: Any) -> None:
            formats.append((stream.head.subtype, stream.codec.__content_subtype__))
            await stream.send_message((await stream.recv_message()).upper())

    formats: list[tuple[str, str]] = []
    async with linked(server=Server([Upper(), Echo()])) as ours:
        for name in ("plain", "proto", "plain"):
            codec = RawCodec(name)
            assert await said(ours.channel, "/own.Upper/Say", b"a", codec) == b"A"
            assert await said(ours.channel, "/own.Upper/Say", b"", codec) == b""
        with pytest.raises(GRPCError, match="format 'other'"):
            await said(ours.channel, "/own.Upper/Say", b"a", RawCodec("other"))
        with pytest.raises(GRPCError, match="format 'plain'"):
            await said(ours.channel, UNARY, b"a", RawCodec("plain"))
        assert (await ours.stub.Unary(EchoRequest(text="a"))).text == "a"
        await ours.check_nothing_is_left()
    assert formats == [(name, name) for name in ("plain",) * 2 + ("proto",) * 2 + ("plain",) * 2]


async def test_the_answer_names_the_format_of_the_request() -> None:
    class Upper:
        def __mapping__(self) -> dict[str, Any]:
            codecs = {"plain": RawCodec("plain")}
            return {
                f"/own.Upper/{name}": CodecHandler.make(func, Cardinality.UNARY_UNARY, codecs)
                for name, func in (("Say", self.say), ("Fail", self.fail))
            }

        async def say(self, stream: Any) -> None:
            await stream.send_message(await stream.recv_message())

        async def fail(self, stream: Any) -> None:
            raise GRPCError(Status.NOT_FOUND)

    async with scripted_client(Upper()) as (_, peer):
        for name in ("Say", "Fail"):
            headers = {":path": f"/own.Upper/{name}", "content-type": "application/grpc+plain"}
            await peer.request(body=framed(b"a"), fields=headers)
            response = await peer.until(h2.events.ResponseReceived)
            fields: dict[Any, Any] = dict(response.headers)
            assert fields == {**fields, "content-type": "application/grpc+plain"}


async def test_a_channel_runs_what_its_calls_have_to_do_meanwhile() -> None:
    done = anyio.Event()

    async def run(value: int) -> None:
        assert value == 1
        done.set()

    async with linked() as ours:
        ours.channel.start_soon(run, 1)
        with anyio.fail_after(5):
            await done.wait()
    with pytest.raises(GRPCError, match="not open"):
        ours.channel.start_soon(run, 1)


async def test_a_call_without_a_deadline_gets_the_one_of_the_options() -> None:
    async def stuck(stream: Any) -> None:
        await anyio.Event().wait()

    options = RPCOptions(default_timeout=0.02)
    async with linked(Echo(Unary=stuck), channel_options=options) as ours:
        with pytest.raises(DeadlineExceeded):
            await ours.stub.Unary(EchoRequest())
        with anyio.move_on_after(0.2) as scope:
            await ours.stub.Unary(EchoRequest(), timeout=math.inf)
        assert scope.cancelled_caught


async def test_a_call_can_do_without_the_deadline_of_the_call_being_handled() -> None:
    async with linked() as inner:

        async def handler(stream: Any) -> None:
            await stream.recv_message()
            own = request(inner.channel, "Unary")
            free = request(inner.channel, "Unary", timeout=math.inf)
            text = f"{own.deadline is not None} {free.deadline is None}"
            await stream.send_message(EchoReply(text=text))

        async with linked(Echo(Unary=handler)) as outer:
            reply = await outer.stub.Unary(EchoRequest(), timeout=5)
            assert reply.text == "True True"
