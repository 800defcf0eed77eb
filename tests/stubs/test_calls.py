"""What a script cannot see: ends of all kinds, and what they leave behind."""

from __future__ import annotations

import ast
import gc
import ssl
import threading
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import grpc  # type: ignore[import-untyped]
import pytest
import trustme
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.events import RequestReceived

from pyvider_rpcplugin import plugin_client, plugin_protocol, plugin_server
from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc import ConnectionLost, RPCOptions, Server
from pyvider_rpcplugin.rpc._eager import StreamedResponse
from tests.protos.echo_grpc import EchoStub as GrpclibStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.protos.echo_pb2_grpc import EchoServicer
from tests.rpc.support import OK, RESPONSE, Linked, linked, message, scripted_server

from .generated import EchoStub, add_EchoServicer_to_server
from .servicers import Blocking, Servicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def connected(servicer: Any = None, **options: Any) -> AsyncIterator[tuple[Any, Linked]]:
    server = Server(options=options.pop("server_options", None))
    add_EchoServicer_to_server(servicer or Servicer(), server)
    async with linked(server=server, **options) as link:
        yield EchoStub(link.channel), link
        await link.check_nothing_is_left()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


# --- calls that nobody keeps ----------------------------------------------------------------------


async def test_a_stream_that_nobody_keeps_is_cancelled() -> None:
    servicer = Servicer()
    async with connected(servicer) as (stub, _):
        call = stub.ServerStream(EchoRequest(text="hang:dropped", count=1))
        await call.read()
        del call
        gc.collect()
        await servicer.events["dropped"].wait()


async def test_requests_of_a_call_that_nobody_keeps_are_not_sent() -> None:
    servicer = Servicer()
    ended = anyio.Event()

    async def requests() -> Any:
        try:
            yield EchoRequest(text="happen:sent")
            await anyio.Event().wait()
        finally:
            ended.set()

    async with connected(servicer) as (stub, _):
        call = stub.Bidi(requests())
        await servicer.events["sent"].wait()
        del call
        gc.collect()
        await ended.wait()


async def test_a_call_leaves_no_reference_cycle_behind() -> None:
    async with connected() as (stub, _):
        await stub.Unary(EchoRequest())
        gc.collect()
        gc.disable()
        try:
            await stub.Unary(EchoRequest())
            async for _ in stub.ServerStream(EchoRequest(count=2)):
                pass
            left = [thing for thing in gc.get_objects() if isinstance(thing, StreamedResponse)]
        finally:
            gc.enable()
        assert not left


# --- ends -----------------------------------------------------------------------------------------


async def test_a_lost_connection_is_unavailable_and_says_why() -> None:
    server = Server()
    add_EchoServicer_to_server(Servicer(), server)
    async with linked(server=server, link="unix") as link:
        stub = EchoStub(link.channel)
        begun = stub.Unary(EchoRequest(text="hang:lost"))
        stream = stub.Bidi()
        await stub.Unary(EchoRequest(text="wait:lost begun"))
        for connection in link.connections[1:]:
            connection.close()
        error = await failure(begun)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert isinstance(error.__cause__, ConnectionLost)
        assert str(error.__cause__) == error.debug_error_string()
        assert (await failure(stream.read())).code() is grpc.StatusCode.UNAVAILABLE
        assert (await stub.Unary(EchoRequest(text="again"))).text == "again"


async def test_a_closed_channel_is_unavailable() -> None:
    async with linked() as link:
        stub = EchoStub(link.channel)
        running = stub.Bidi()
        link.channel.close()
        assert (await running.code()) is grpc.StatusCode.CANCELLED
        assert (await failure(stub.Unary(EchoRequest()))).code() is grpc.StatusCode.UNAVAILABLE
        call = stub.ServerStream(EchoRequest())
        assert call.done()
        assert (await failure(call.read())).code() is grpc.StatusCode.UNAVAILABLE


async def test_calls_wait_for_their_turn() -> None:
    servicer = Servicer()
    options = RPCOptions(max_concurrent_streams=1)
    async with connected(servicer, server_options=options) as (stub, _):
        first = stub.Unary(EchoRequest(text="wait:turn"))
        unary = stub.Unary(EchoRequest(text="unary"))
        stream = stub.ClientStream([EchoRequest(text="stream")])
        given_up = stub.Unary(EchoRequest(), timeout=0.05)
        assert (await failure(given_up)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        cancelled = stub.Bidi([EchoRequest()])
        assert cancelled.cancel()
        assert not any(call.done() for call in (first, unary, stream))
        servicer.events["turn"].set()
        assert [(await call).text for call in (first, unary, stream)] == [
            "turn has happened",
            "unary",
            "stream",
        ]


async def test_what_is_written_waits_for_the_calls_turn() -> None:
    servicer = Servicer()
    options = RPCOptions(max_concurrent_streams=1)
    async with connected(servicer, server_options=options) as (stub, _):
        first = stub.Unary(EchoRequest(text="wait:turn"))
        written = stub.Bidi()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(written.write, EchoRequest(text="written"))
            servicer.events["turn"].set()
            await first
        await written.done_writing()
        assert [reply.text async for reply in written] == ["written"]


async def test_wait_for_ready_tries_until_there_is_a_connection() -> None:
    attempts = 0
    async with linked(link="unix") as link:
        connect = link.channel._connect

        async def connect_at_last() -> Any:
            nonlocal attempts
            attempts += 1
            if attempts < 3:
                raise OSError("not yet")
            return await connect()

        link.channel._connect = connect_at_last
        for connection in link.connections:
            connection.close()
        while link.channel.connection_now() is not None:
            await anyio.lowlevel.checkpoint()
        stub = EchoStub(link.channel)
        reply = await stub.Unary(EchoRequest(text="ready"), wait_for_ready=True)
        assert (reply.text, attempts) == ("ready", 3)


# --- messages -------------------------------------------------------------------------------------


async def test_a_response_larger_than_the_window_comes_without_being_awaited() -> None:
    async with connected() as (stub, _):
        done = anyio.Event()
        call = stub.Unary(EchoRequest(data=bytes(3_000_000)))
        call.add_done_callback(lambda call: done.set())
        await done.wait()
        assert len((await call).data) == 3_000_000


async def test_a_response_that_is_too_large_is_resource_exhausted() -> None:
    options = RPCOptions(max_receive_message_size=1000)
    async with connected(channel_options=options) as (stub, _):
        big = EchoRequest(data=bytes(100_000), count=1)
        error = await failure(stub.Unary(big))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await failure(stub.ServerStream(big).read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_that_is_too_large_is_resource_exhausted() -> None:
    options = RPCOptions(max_send_message_size=1000)
    async with connected(channel_options=options) as (stub, _):
        call = stub.Unary(EchoRequest(data=bytes(2000)))
        assert call.done()
        assert (await failure(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stream = stub.Bidi()
        error = await failure(stream.write(EchoRequest(data=bytes(2000))))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call = stub.ClientStream([EchoRequest(data=bytes(2000))])
        assert (await failure(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_cannot_be_serialized_or_deserialized_is_internal() -> None:
    def fail(_: Any) -> Any:
        raise ValueError("no")

    async with connected() as (_, link):
        name = "/testing.echo.Echo/Unary"
        error = await failure(link.channel.unary_unary(name, fail)(b""))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.INTERNAL,
            "Exception serializing request!",
        )
        assert isinstance(error.__cause__, ValueError)
        error = await failure(link.channel.unary_unary(name, None, fail)(b""))
        assert error.code() is grpc.StatusCode.INTERNAL
        call = link.channel.unary_stream("/testing.echo.Echo/ServerStream", None, fail)
        request = EchoRequest(count=1).SerializeToString()
        assert (await failure(call(request).read())).code() is grpc.StatusCode.INTERNAL


async def test_a_server_that_breaks_off_or_says_too_much_is_internal() -> None:
    async with scripted_server() as (channel, peer):
        stub = EchoStub(channel)
        for body in (b"", message("a") + message("b"), message("a")[:-1]):
            call = stub.Unary(EchoRequest())
            stream_id = (await peer.until(RequestReceived)).stream_id
            await peer.respond(stream_id, body, OK)
            assert (await failure(call)).code() is grpc.StatusCode.INTERNAL
        stream = stub.ServerStream(EchoRequest())
        stream_id = (await peer.until(RequestReceived)).stream_id
        await peer.respond(stream_id, message("a") + message("b")[:-1], OK)
        assert (await stream.read()).text == "a"
        assert (await failure(stream.read())).code() is grpc.StatusCode.INTERNAL


async def test_a_response_in_an_unknown_encoding_is_internal() -> None:
    async with scripted_server() as (channel, peer):
        call = EchoStub(channel).Unary(EchoRequest())
        stream_id = (await peer.until(RequestReceived)).stream_id
        headers = [*RESPONSE, ("grpc-encoding", "snappy")]
        await peer.respond(stream_id, message("a", flag=1), OK, headers)
        error = await failure(call)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "snappy" in (error.details() or "")


async def test_a_stream_that_is_reset_has_the_status_of_its_code() -> None:
    async with scripted_server() as (channel, peer):
        for code, status in ((8, "CANCELLED"), (7, "UNAVAILABLE"), (2, "INTERNAL")):
            call = EchoStub(channel).Bidi()
            stream_id = (await peer.until(RequestReceived)).stream_id
            peer.h2.reset_stream(stream_id, code)
            await peer.send()
            assert (await failure(call.read())).code().name == status
            assert not (await call.initial_metadata())
            assert await call.debug_error_string()


async def test_a_callback_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Any) -> None:
        raise ValueError

    async with connected() as (stub, _):
        call = stub.Unary(EchoRequest(text="x"))
        call.add_done_callback(fail)
        assert (await call).text == "x"
    assert "rpc.callback.failed" in caplog.text


async def test_calls_are_of_grpcios_kinds() -> None:
    async with connected() as (stub, _):
        for method, kind in (
            (stub.Unary, "UnaryUnary"),
            (stub.ServerStream, "UnaryStream"),
            (stub.ClientStream, "StreamUnary"),
            (stub.Bidi, "StreamStream"),
        ):
            assert isinstance(method, getattr(grpc.aio, f"{kind}MultiCallable"))
            call = method([]) if kind.startswith("Stream") else method(EchoRequest())
            assert isinstance(call, getattr(grpc.aio, f"{kind}Call"))
            assert isinstance(call, grpc.aio.Call)
            assert await call.code() is grpc.StatusCode.OK


async def test_a_call_shows_how_it_ended() -> None:
    async with connected() as (stub, _):
        call = stub.Unary(EchoRequest(text="abort:5:gone"))
        assert repr(call) == "<UnaryUnaryCall object>"
        await failure(call)
        assert "NOT_FOUND" in repr(call)
        assert "gone" in repr(call)
        assert repr(stub.Unary) == "<UnaryUnaryMultiCallable /testing.echo.Echo/Unary>"


async def test_a_written_request_that_is_not_taken_is_given_up_with_its_task() -> None:
    async with connected() as (stub, _):
        call = stub.Bidi()
        with anyio.move_on_after(0.05):
            for _ in range(1000):  # Replies come back that nobody reads.
                await call.write(EchoRequest(text="x" * 100_000))
        assert call.cancelled()


async def test_what_is_not_grpc_is_told_apart() -> None:
    async with scripted_server() as (channel, peer):
        call = EchoStub(channel).Unary(EchoRequest())
        stream_id = (await peer.until(RequestReceived)).stream_id
        await peer.respond(stream_id, headers=[(":status", "503")], end=True)
        assert (await failure(call)).code() is grpc.StatusCode.UNAVAILABLE
        call = EchoStub(channel).ServerStream(EchoRequest())
        stream_id = (await peer.until(RequestReceived)).stream_id
        await peer.respond(stream_id, b"<html>", headers=[(":status", "404")])
        assert (await failure(call.read())).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_credentials_are_refused() -> None:
    async with linked() as link:
        with pytest.raises(ProtocolError, match="credentials"):
            EchoStub(link.channel).Unary(EchoRequest(), credentials=object())


async def test_metadata_that_cannot_be_sent_is_told() -> None:
    async with linked() as link:
        stub = EchoStub(link.channel)
        error = await failure(stub.Unary(EchoRequest(), metadata=(("Bad Key", "x"),)))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "Bad Key" in (error.details() or "")
        with pytest.raises(TypeError):
            stub.Unary(EchoRequest(), metadata={"x": "y"})


# --- servicers ------------------------------------------------------------------------------------


async def test_grpclibs_stubs_call_servicers() -> None:
    class Refusing(EchoServicer):
        async def Unary(self, request: Any, context: Any) -> Any:
            raise GRPCError(Status.DATA_LOSS, "as grpclib's users do")

    async with connected() as (_, link):
        stub = GrpclibStub(link.channel)
        assert (await stub.Unary(EchoRequest(text="hello"))).text == "hello"
        assert [reply.text for reply in await stub.Bidi([EchoRequest(text="a")])] == ["a"]
    async with connected(Refusing()) as (_, link):
        with pytest.raises(GRPCError) as caught:
            await GrpclibStub(link.channel).Unary(EchoRequest())
        assert (caught.value.status, caught.value.message) == (
            Status.DATA_LOSS,
            "as grpclib's users do",
        )


async def test_methods_that_were_not_written_are_unimplemented() -> None:
    async with connected(EchoServicer()) as (stub, _):
        error = await failure(stub.Unary(EchoRequest()))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "Method not implemented!" in (error.details() or "")
        call = stub.ServerStream(EchoRequest())
        assert (await failure(call.read())).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_abort_in_a_task_group_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    class Nursery(EchoServicer):
        async def Unary(self, request: Any, context: Any) -> Any:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(context.abort, grpc.StatusCode.ABORTED, "inside")

    async with connected(Nursery()) as (stub, _):
        error = await failure(stub.Unary(EchoRequest()))
        assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "inside")
    assert "rpc.handler.failed" not in caplog.text


async def test_as_many_threads_as_workers() -> None:
    running = 0
    most = 0
    lock = threading.Lock()
    release = threading.Event()
    together = threading.Barrier(3, action=release.set)

    class Counting(EchoServicer):
        def Unary(self, request: Any, context: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            if not release.is_set():
                together.wait(60)
            with lock:
                running -= 1
            return EchoReply()

    options = RPCOptions(max_workers=3)
    async with connected(Counting(), server_options=options) as (stub, _):
        calls = [stub.Unary(EchoRequest()) for _ in range(9)]
        for call in calls:
            await call
    assert most == 3


async def test_a_thread_learns_that_its_call_is_over() -> None:
    begun, ended, closed = threading.Event(), threading.Event(), threading.Event()

    class Patient(EchoServicer):
        def Unary(self, request: Any, context: Any) -> Any:
            begun.set()
            while context.is_active():
                ended.wait(0.001)
            ended.set()
            return EchoReply()

        def Bidi(self, request_iterator: Any, context: Any) -> Any:
            try:
                for _ in request_iterator:
                    yield EchoReply()
            finally:
                closed.set()

    async with connected(Patient()) as (stub, _):
        # A deadline may have passed before there is a thread to tell.
        while not begun.is_set():
            call = stub.Unary(EchoRequest(), timeout=0.05)
            assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await anyio.to_thread.run_sync(ended.wait, 60)
        stream = stub.Bidi()
        await stream.write(EchoRequest())
        await stream.read()
        stream.cancel()
        assert await anyio.to_thread.run_sync(closed.wait, 60)


async def test_a_thread_that_goes_on_reading_after_the_deadline_is_told() -> None:
    told: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    class Reading(EchoServicer):
        def ClientStream(self, request_iterator: Any, context: Any) -> Any:
            begun.set()
            try:
                for _ in request_iterator:
                    pass
            except BaseException as error:
                told.append(error)
                raise
            finally:
                ended.set()

    async with connected(Reading()) as (stub, _):
        while not begun.is_set():
            call = stub.ClientStream(timeout=0.05)
            assert (await failure(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await anyio.to_thread.run_sync(ended.wait, 60)
    assert told


async def test_a_generic_handler_is_asked_for_what_nobody_serves() -> None:
    asked: list[str] = []

    class Generic(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            asked.append(details.method)
            if details.method == "/any/Thing":
                return grpc.unary_unary_rpc_method_handler(self.reverse)
            return None

        async def reverse(self, request: bytes, context: Any) -> bytes:
            return request[::-1]

    server = Server()
    server.add_generic_rpc_handlers((Generic(),))
    async with linked(server=server) as link:
        assert await link.channel.unary_unary("/any/Thing")(b"abc") == b"cba"
        error = await failure(link.channel.unary_unary("/any/Other")(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert asked == ["/any/Thing", "/any/Other"]


async def test_a_generic_handler_that_fails_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            raise ValueError

    server = Server()
    server.add_generic_rpc_handlers((Broken(),))
    async with linked(server=server) as link:
        error = await failure(link.channel.unary_unary("/any/Thing")(b""))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "rpc.generic.failed" in caplog.text


async def test_objects_and_partial_functions_serve() -> None:
    class Waiting:
        async def __call__(self, request: Any, context: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return EchoReply(text=f"waiting {request.text}")

    class Plain:
        def __call__(self, request: Any, context: Any) -> Any:
            return EchoReply(text=f"plain {request.text}")

    async def function(word: str, request: Any, context: Any) -> Any:
        return EchoReply(text=f"{word} {request.text}")

    for behaviour in (Waiting(), Plain(), partial(function, "partial")):
        method = grpc.unary_unary_rpc_method_handler(
            behaviour, EchoRequest.FromString, EchoReply.SerializeToString
        )
        server = Server()
        server.add_registered_method_handlers("testing.echo.Echo", {"Unary": method})
        async with linked(server=server) as link:
            reply = await EchoStub(link.channel).Unary(EchoRequest(text="x"))
            assert reply.text in {"waiting x", "plain x", "partial x"}


async def test_a_handler_ends_its_call_in_other_ways() -> None:
    class Ending(EchoServicer):
        async def Unary(self, request: Any, context: Any) -> Any:
            if request.text == "cancel":
                await context.cancel()
            context.set_trailing_metadata((("x-late", "1"),))
            assert context.is_active()
            assert context.add_callback(ended.set)
            return EchoReply()

        def ServerStream(self, request: Any, context: Any) -> Any:
            context.cancel()
            yield EchoReply()

    ended = threading.Event()
    async with connected(Ending()) as (stub, _):
        await stub.Unary(EchoRequest())
        assert await anyio.to_thread.run_sync(ended.wait, 60)
        error = await failure(stub.Unary(EchoRequest(text="cancel")))
        assert error.code() is grpc.StatusCode.CANCELLED
        error = await failure(stub.ServerStream(EchoRequest()).read())
        assert error.code() is grpc.StatusCode.CANCELLED


async def test_trailing_metadata_that_cannot_be_sent_is_told_to_who_sets_it() -> None:
    class Wrong(EchoServicer):
        async def Unary(self, request: Any, context: Any) -> Any:
            context.set_trailing_metadata((("Bad Key", "x"),))

    async with connected(Wrong()) as (stub, _):
        error = await failure(stub.Unary(EchoRequest()))
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert "Bad Key" in (error.details() or "")


def test_a_method_is_served_once() -> None:
    server = Server()
    add_EchoServicer_to_server(Servicer(), server)
    with pytest.raises(ProtocolError, match="served already"):
        add_EchoServicer_to_server(Blocking(), server)


# --- who calls ------------------------------------------------------------------------------------


class WhoCalls(EchoServicer):
    """Says what it knows of its clients."""

    async def Unary(self, request: Any, context: Any) -> Any:
        known = {key: context.auth_context().get(key) for key in AUTH_KEYS}
        identities = context.peer_identity_key(), list(context.peer_identities() or ())
        return EchoReply(text=repr((known, identities, context.peer().partition(":")[0])))


AUTH_KEYS = (
    "transport_security_type",
    "security_level",
    "x509_common_name",
    "x509_subject_alternative_name",
    "x509_pem_cert",
)


@pytest.mark.net
@pytest.mark.parametrize("names", [["a.example", "b.example"], []], ids=["names", "no names"])
async def test_a_handler_knows_its_client_by_its_certificate(names: list[str]) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    client = authority.issue_cert(*names, common_name="me")
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.verify_mode = ssl.CERT_REQUIRED
    # From Python 3.13 on it would refuse a certificate whose list of names is there, and empty.
    server_tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    client_tls = ssl.create_default_context()
    for context, identity in ((server_tls, own), (client_tls, client)):
        identity.configure_cert(context)
        authority.configure_trust(context)
        context.set_alpn_protocols(["h2"])
    server = plugin_server(
        plugin_protocol(servicer_add_fn=add_EchoServicer_to_server),
        WhoCalls(),
        transport="tcp",
        tls=server_tls,
        standalone=True,
    )
    with anyio.fail_after(5):
        async with server.serve() as address:
            async with plugin_client(address=address, tls=client_tls) as started:
                reply = await started.stub(EchoStub).Unary(EchoRequest())
    known, (key, identities), peer = ast.literal_eval(reply.text)
    assert peer == "ipv4"
    assert known["transport_security_type"] == [b"ssl"]
    assert known["security_level"] == [b"TSI_PRIVACY_AND_INTEGRITY"]
    assert known["x509_common_name"] == [b"me"]
    pem = client.cert_chain_pems[0].bytes().decode()
    [shown] = known["x509_pem_cert"]
    assert ssl.PEM_cert_to_DER_cert(shown.decode()) == ssl.PEM_cert_to_DER_cert(pem)
    encoded = [name.encode() for name in names]
    assert known["x509_subject_alternative_name"] == (encoded or None)
    if names:
        assert (key, identities) == ("x509_subject_alternative_name", encoded)
    else:
        assert (key, identities) == ("x509_common_name", [b"me"])
