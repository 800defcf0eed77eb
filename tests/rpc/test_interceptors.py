"""Interceptors see each call before it begins, and how it ends: on both sides, for all types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import grpc  # type: ignore[import-untyped]
import pytest
from grpclib.const import Status
from grpclib.events import SendRequest, listen
from grpclib.exceptions import GRPCError
from trio.testing import MockClock

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc import (
    CallStatus,
    DeadlineExceeded,
    InterceptedCall,
    Observer,
    RPCOptions,
    Server,
)
from pyvider_rpcplugin.rpc._interceptors import check_client_interceptors
from pyvider_rpcplugin.services.limits import RateLimit
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.stubs.generated import EchoStub as ServicerStub, add_EchoServicer_to_server
from tests.stubs.servicers import Blocking, Servicer

from .support import Echo, Linked, linked


class Recorder:
    """Writes down what it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.calls: list[InterceptedCall] = []

    @property
    def ends(self) -> list[str]:
        """The ends alone: on a server, the next call may begin before one is over."""
        return [line for line in self.seen if " " in line]

    async def __call__(self, call: InterceptedCall) -> Observer:
        self.calls.append(call)
        name = call.method.rpartition("/")[2]
        self.seen.append(name)

        def observer(status: CallStatus) -> None:
            self.seen.append(f"{name} {status.status.name}")

        return observer


def intercepting(server: Server, *interceptors: Any) -> Server:
    server.intercept(interceptors)
    return server


async def call_all(stub: Any) -> None:
    """Call each of the methods once, with any of the two kinds of stubs."""
    assert (await stub.Unary(EchoRequest(text="hello"))).text == "hello"
    if isinstance(stub, EchoStub):
        assert len(await stub.ServerStream(EchoRequest(count=2))) == 2
        assert (await stub.ClientStream([EchoRequest(text="a")])).index == 1
        assert len(await stub.Bidi([EchoRequest()])) == 1
    else:
        assert len([reply async for reply in stub.ServerStream(EchoRequest(count=2))]) == 2
        assert (await stub.ClientStream([EchoRequest(text="a")])).index == 1
        assert len([reply async for reply in stub.Bidi([EchoRequest()])]) == 1


METHODS = ["Unary", "ServerStream", "ClientStream", "Bidi"]
EACH = [line for name in METHODS for line in (name, f"{name} OK")]

STUBS = pytest.mark.parametrize("make_stub", [EchoStub, ServicerStub], ids=["grpclib", "grpcio"])


def servicer_server(servicer: Any) -> Server:
    server = Server()
    add_EchoServicer_to_server(servicer, server)
    return server


SERVERS: dict[str, Callable[[], Server]] = {
    "grpclib": lambda: Server([Echo()]),
    "aio": lambda: servicer_server(Servicer()),
    "blocking": lambda: servicer_server(Blocking()),
}
EVERY_SERVER = pytest.mark.parametrize("make_server", SERVERS.values(), ids=SERVERS)


@asynccontextmanager
async def intercepted_client(*interceptors: Any, **options: Any) -> AsyncIterator[Linked]:
    async with linked(interceptors=interceptors, **options) as link:
        yield link
        link.channel.interceptors = ()
        await link.check_nothing_is_left()


# --- clients --------------------------------------------------------------------------------------


@STUBS
async def test_a_client_sees_each_call_and_its_end(make_stub: Any) -> None:
    recorder = Recorder()
    async with intercepted_client(recorder) as link:
        await call_all(make_stub(link.channel))
    assert recorder.seen == EACH
    kinds = [(call.client_streaming, call.server_streaming) for call in recorder.calls]
    assert kinds == [(False, False), (False, True), (True, False), (True, True)]
    assert all(call.is_client for call in recorder.calls)


@STUBS
async def test_a_client_adds_metadata(make_stub: Any) -> None:
    got: list[Any] = []

    async def answer(stream: Any) -> None:
        got.append(stream.metadata.get("x-token"))
        await stream.recv_message()
        await stream.send_message(EchoReply())

    async def add_token(call: InterceptedCall) -> None:
        call.metadata["x-token"] = f"for {call.method}"

    async with intercepted_client(add_token, service=Echo(Unary=answer)) as link:
        await make_stub(link.channel).Unary(EchoRequest())
        await make_stub(link.channel).Unary(EchoRequest(), metadata=(("x-other", "y"),))
    assert got == ["for /testing.echo.Echo/Unary"] * 2


@STUBS
async def test_a_client_limits_calls(make_stub: Any) -> None:
    async def hang(stream: Any) -> None:
        await anyio.Event().wait()

    async def limit(call: InterceptedCall) -> None:
        call.limit(100)
        call.limit(0.05)
        call.limit(100)

    recorder = Recorder()
    async with intercepted_client(recorder, limit, service=Echo(Unary=hang)) as link:
        with pytest.raises((DeadlineExceeded, grpc.RpcError)):
            await make_stub(link.channel).Unary(EchoRequest())
    assert recorder.seen == ["Unary", "Unary DEADLINE_EXCEEDED"]


@STUBS
async def test_a_client_refuses_a_call_and_who_has_seen_it_is_told(make_stub: Any) -> None:
    async def refuse(call: InterceptedCall) -> None:
        raise GRPCError(Status.PERMISSION_DENIED, "not from here")

    recorder = Recorder()
    async with intercepted_client(recorder, refuse) as link:
        with pytest.raises((GRPCError, grpc.RpcError), match="not from here"):
            await make_stub(link.channel).Unary(EchoRequest())
        stream = make_stub(link.channel).Bidi
        with pytest.raises((GRPCError, grpc.RpcError), match="not from here"):
            if make_stub is EchoStub:
                async with stream.open() as opened:
                    await opened.send_request()
            else:
                await stream().read()
    assert recorder.seen == [
        "Unary",
        "Unary PERMISSION_DENIED",
        "Bidi",
        "Bidi PERMISSION_DENIED",
    ]


async def test_a_call_that_is_given_up_ends_with_cancelled() -> None:
    recorder = Recorder()
    async with intercepted_client(recorder) as link:
        stub = EchoStub(link.channel)
        async with stub.Bidi.open() as stream:
            await stream.send_message(EchoRequest())
            await stream.cancel()
        async with stub.ServerStream.open() as stream:
            await stream.send_message(EchoRequest(data=bytes(100_000), count=100))
            await stream.recv_message()
        with anyio.CancelScope() as scope:
            async with stub.Bidi.open() as stream:
                await stream.send_message(EchoRequest())
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        call = ServicerStub(link.channel).Bidi()
        await call.write(EchoRequest())
        await call.read()
        call.cancel()
    assert recorder.ends == [
        "Bidi CANCELLED",
        "ServerStream CANCELLED",
        "Bidi CANCELLED",
        "Bidi CANCELLED",
    ]


async def test_an_observer_of_a_call_that_is_given_up_before_it_begins_is_told_once() -> None:
    recorder = Recorder()
    waits = anyio.Event()

    async def never(call: InterceptedCall) -> None:
        waits.set()
        await anyio.sleep_forever()

    async with intercepted_client(recorder) as link:
        stub = ServicerStub(link.channel)
        stub.Unary(EchoRequest()).cancel()  # its interceptors have not been called yet
        await anyio.wait_all_tasks_blocked()
        assert len(recorder.ends) == recorder.seen.count("Unary")
        recorder.seen.clear()
        link.channel.interceptors = (recorder, never)
        call = stub.Unary(EchoRequest())
        with anyio.fail_after(5):
            await waits.wait()
        call.cancel()  # between two of them
        await anyio.wait_all_tasks_blocked()
        assert recorder.seen == ["Unary", "Unary CANCELLED"]
        recorder.seen.clear()
        waits = anyio.Event()
        call = stub.ServerStream(EchoRequest())
        with anyio.fail_after(5):
            await waits.wait()
        del call  # dropped
        with anyio.fail_after(5):
            while not recorder.ends:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert recorder.seen == ["ServerStream", "ServerStream CANCELLED"]


@STUBS
async def test_a_call_that_the_server_refuses_ends_with_its_status(make_stub: Any) -> None:
    async def refuse(stream: Any) -> None:
        raise GRPCError(Status.ABORTED, "no")

    recorder = Recorder()
    async with intercepted_client(recorder, service=Echo(Unary=refuse)) as link:
        with pytest.raises((GRPCError, grpc.RpcError)):
            await make_stub(link.channel).Unary(EchoRequest())
    assert recorder.seen == ["Unary", "Unary ABORTED"]


async def test_a_call_that_cannot_begin_ends_with_unavailable() -> None:
    recorder = Recorder()
    async with linked(interceptors=[recorder]) as link:
        link.channel.close()
        with pytest.raises(GRPCError):
            await EchoStub(link.channel).Unary(EchoRequest())
    assert recorder.seen == ["Unary", "Unary UNAVAILABLE"]


async def test_observers_are_told_in_reverse_and_do_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[InterceptedCall], Awaitable[Observer]]:
        async def interceptor(call: InterceptedCall) -> Observer:
            order.append(name)

            def observer(status: CallStatus) -> None:
                order.append(f"{name} {status.status.name}")
                raise ValueError(name)

            return observer

        return interceptor

    async with intercepted_client(named("outer"), named("inner")) as link:
        assert (await EchoStub(link.channel).Unary(EchoRequest(text="x"))).text == "x"
    assert order == ["outer", "inner", "inner OK", "outer OK"]
    assert caplog.text.count("rpc.observer.failed") == 2


@STUBS
async def test_listeners_see_what_interceptors_have_made_of_a_call(make_stub: Any) -> None:
    seen: list[str] = []

    async def on_request(event: SendRequest) -> None:
        seen.append(str(event.metadata.get("x-token")))
        event.metadata["x-token"] = "listener"

    async def add_token(call: InterceptedCall) -> None:
        call.metadata["x-token"] = "interceptor"

    async def answer(stream: Any) -> None:
        seen.append(stream.metadata["x-token"])
        await stream.recv_message()
        await stream.send_message(EchoReply())

    async with intercepted_client(add_token, service=Echo(Unary=answer)) as link:
        listen(link.channel, SendRequest, on_request)
        await make_stub(link.channel).Unary(EchoRequest())
        assert seen == ["interceptor", "listener"]


def test_what_is_no_interceptor_of_a_client_is_refused() -> None:
    class Grpcio:
        async def intercept_unary_unary(self, *args: Any) -> None: ...

        def __call__(self) -> None: ...

    for wrong in (Grpcio(), object()):
        with pytest.raises(ProtocolError, match="no interceptor of a client"):
            check_client_interceptors([wrong])


# --- servers --------------------------------------------------------------------------------------


@STUBS
@EVERY_SERVER
async def test_a_server_sees_each_call_and_its_end(make_server: Any, make_stub: Any) -> None:
    recorder = Recorder()
    async with linked(server=intercepting(make_server(), recorder)) as link:
        await call_all(make_stub(link.channel))
        await link.check_nothing_is_left()
    assert recorder.seen == EACH
    assert not any(call.is_client for call in recorder.calls)
    assert all(call.peer is not None for call in recorder.calls)


@EVERY_SERVER
async def test_a_server_refuses_a_call_before_its_handler(make_server: Any) -> None:
    async def refuse(call: InterceptedCall) -> None:
        if call.metadata.get("x-token") != "mine":
            raise GRPCError(Status.UNAUTHENTICATED, "who are you?")

    recorder = Recorder()
    async with linked(server=intercepting(make_server(), recorder, refuse)) as link:
        with pytest.raises(GRPCError, match="who are you") as caught:
            await link.stub.Unary(EchoRequest())
        assert caught.value.status is Status.UNAUTHENTICATED
        await link.stub.Unary(EchoRequest(), metadata={"x-token": "mine"})
    assert recorder.seen == ["Unary", "Unary UNAUTHENTICATED", "Unary", "Unary OK"]


@pytest.mark.parametrize("name", ["aio", "blocking"])
async def test_a_server_sees_the_statuses_of_servicers(name: str) -> None:
    recorder = Recorder()
    async with linked(server=intercepting(SERVERS[name](), recorder)) as link:
        for text in ("abort:5:x", "set_code:3:x", "fail:x"):
            with pytest.raises(GRPCError):
                await link.stub.Unary(EchoRequest(text=text))
    # A thread that has ended its call may take a moment more than its client.
    ends = sorted(recorder.ends)
    assert ends == ["Unary INVALID_ARGUMENT", "Unary NOT_FOUND", "Unary UNKNOWN"]


async def test_a_server_sees_failures_and_calls_that_were_given_up() -> None:
    begun = anyio.Event()

    async def fail(stream: Any) -> None:
        raise ValueError

    async def hang(stream: Any) -> None:
        begun.set()
        await anyio.Event().wait()

    async def silent(stream: Any) -> None:
        await stream.recv_message()

    recorder = Recorder()
    server = Server([Echo(Unary=fail, Bidi=hang, ClientStream=silent)])
    async with linked(server=intercepting(server, recorder)) as link:
        with pytest.raises(GRPCError):
            await link.stub.Unary(EchoRequest())
        with pytest.raises(GRPCError):
            await link.stub.ClientStream([EchoRequest()])
        async with link.stub.Bidi.open() as stream:
            await stream.send_request()
            await begun.wait()
            await stream.cancel()
        with anyio.fail_after(5):
            while len(recorder.ends) < 3:
                await anyio.lowlevel.checkpoint()
            # A deadline may have passed before there is a call to end.
            while len(recorder.ends) < 4:
                with pytest.raises(DeadlineExceeded):
                    await link.stub.Bidi([EchoRequest()], timeout=0.05)
                await link.check_nothing_is_left()
    *others, late = recorder.ends
    assert others == ["Unary UNKNOWN", "ClientStream UNKNOWN", "Bidi CANCELLED"]
    # Whose clock is the faster one.
    assert late in {"Bidi DEADLINE_EXCEEDED", "Bidi CANCELLED"}


@EVERY_SERVER
async def test_a_server_limits_calls_and_those_that_they_make(make_server: Any) -> None:
    async def limit(call: InterceptedCall) -> None:
        call.limit(0.05)

    recorder = Recorder()
    server = intercepting(make_server(), recorder, limit)
    hang = {SERVERS["aio"]: "hang:x", SERVERS["blocking"]: "wait:x"}.get(make_server)
    async with linked(server=server) as link:
        if hang is None:
            with pytest.raises(GRPCError) as caught:
                async with link.stub.ClientStream.open() as stream:
                    await stream.send_request()
                    await stream.recv_message()
            status = caught.value.status
        else:
            with pytest.raises(GRPCError) as caught:
                await link.stub.Unary(EchoRequest(text=hang))
            status = caught.value.status
    assert status is Status.DEADLINE_EXCEEDED
    assert recorder.seen[-1].endswith("DEADLINE_EXCEEDED")


async def test_a_handler_sees_what_an_interceptor_has_put_into_the_context() -> None:
    user: ContextVar[str] = ContextVar("user")

    async def identify(call: InterceptedCall) -> None:
        user.set(str(call.metadata["x-user"]))

    async def answer(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(EchoReply(text=user.get()))

    async with linked(server=intercepting(Server([Echo(Unary=answer)]), identify)) as link:
        reply = await link.stub.Unary(EchoRequest(), metadata={"x-user": "ada"})
    assert reply.text == "ada"


async def test_what_is_served_later_is_not_intercepted() -> None:
    class Other:
        def __mapping__(self) -> dict[str, Any]:
            return {"/other/Unary": Server([Echo()]).methods["/testing.echo.Echo/Unary"]}

    recorder = Recorder()
    server = intercepting(Server([Echo()]), recorder)
    server.add_service(Other())
    async with linked(server=server) as link:
        await link.channel.unary_unary("/other/Unary")(b"")
        await link.stub.Unary(EchoRequest())
    assert recorder.seen == ["Unary", "Unary OK"]


def test_what_is_no_interceptor_of_a_server_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no interceptor of a server"):
        Server([Echo()]).intercept([object()])


# --- those of grpc.aio ----------------------------------------------------------------------------


class Passing(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Looks at calls."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        metadata = dict(details.invocation_metadata)
        self.seen.append(f"{details.method.rpartition('/')[2]} {metadata.get('x-text')}")
        return await continuation(details)


class Refusing(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Answers in the handler's place, as grpcio's examples do."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        if dict(details.invocation_metadata).get("x-text") == "fail":
            raise ValueError("in the interceptor")
        if dict(details.invocation_metadata).get("x-text") == "none":
            return None
        if dict(details.invocation_metadata).get("x-text") == "allowed":
            return await continuation(details)

        async def abort(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not allowed")

        return grpc.unary_unary_rpc_method_handler(abort)


class Wrapping(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Puts something around a handler."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def louder(request: Any, context: Any) -> Any:
            reply = await handler.unary_unary(request, context)
            return EchoReply(text=reply.text.upper())

        return grpc.unary_unary_rpc_method_handler(
            louder, handler.request_deserializer, handler.response_serializer
        )


@EVERY_SERVER
async def test_grpcios_interceptors_pass_calls_on(make_server: Any) -> None:
    seen: list[str] = []
    recorder = Recorder()
    async with linked(server=intercepting(make_server(), Passing(seen), recorder)) as link:
        await call_all(link.stub)
        await link.stub.Unary(EchoRequest(), metadata={"x-text": "t"})
    assert seen == ["Unary None", "ServerStream None", "ClientStream None", "Bidi None", "Unary t"]
    assert recorder.seen == [*EACH, "Unary", "Unary OK"]


@EVERY_SERVER
async def test_grpcios_interceptors_answer_in_the_handlers_place(make_server: Any) -> None:
    recorder = Recorder()
    async with linked(server=intercepting(make_server(), recorder, Refusing())) as link:
        for call in (link.stub.Unary(EchoRequest()), link.stub.Bidi([EchoRequest()])):
            with pytest.raises(GRPCError, match="not allowed") as caught:
                await call
            assert caught.value.status is Status.UNAUTHENTICATED
        for text, status in (("fail", Status.UNKNOWN), ("none", Status.UNIMPLEMENTED)):
            with pytest.raises(GRPCError) as caught:
                await link.stub.Unary(EchoRequest(), metadata={"x-text": text})
            assert caught.value.status is status
        await link.stub.Unary(EchoRequest(), metadata={"x-text": "allowed"})
        await link.check_nothing_is_left()
    assert [line.split()[1] for line in recorder.ends] == [
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
        "UNKNOWN",
        "UNIMPLEMENTED",
        "OK",
    ]


async def test_grpcios_interceptors_wrap_handlers() -> None:
    seen: list[str] = []
    server = intercepting(servicer_server(Servicer()), Wrapping(), Passing(seen))
    async with linked(server=server) as link:
        assert (await link.stub.Unary(EchoRequest(text="quiet"))).text == "QUIET"
    assert seen == ["Unary None"]


async def test_grpcios_interceptors_see_generic_handlers() -> None:
    class Generic(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(self.reverse)

        async def reverse(self, request: bytes, context: Any) -> bytes:
            return request[::-1]

    seen: list[str] = []
    recorder = Recorder()
    server = Server()
    server.add_generic_rpc_handlers((Generic(),))
    async with linked(server=intercepting(server, Passing(seen), recorder)) as link:
        assert await link.channel.unary_unary("/any/Thing")(b"abc") == b"cba"
    assert (seen, recorder.seen) == (["Thing None"], ["Thing", "Thing OK"])


# --- a limit of rates -----------------------------------------------------------------------------

virtual_time = pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(
            ("trio", {"clock": MockClock(autojump_threshold=0)}),
            id="virtual",
        )
    ],
)


@virtual_time
async def test_a_rate_limit_takes_a_burst_and_then_so_many_a_second() -> None:
    limit = RateLimit(10, 3)
    call: Any = None

    async def allowed() -> bool:
        try:
            await limit(call)
        except GRPCError as error:
            return error.status is not Status.RESOURCE_EXHAUSTED
        return True

    assert [await allowed() for _ in range(5)] == [True, True, True, False, False]
    await anyio.sleep(0.1)
    assert [await allowed() for _ in range(2)] == [True, False]
    await anyio.sleep(3600)
    assert [await allowed() for _ in range(4)] == [True, True, True, False]


async def test_a_server_without_a_limit_is_not_slowed_down() -> None:
    server = Server([Echo()], options=RPCOptions())
    before = dict(server.methods)
    server.intercept([])
    assert {path: handler.func for path, handler in server.methods.items()} == {
        path: handler.func for path, handler in before.items()
    }
