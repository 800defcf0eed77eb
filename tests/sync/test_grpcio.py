"""Blocking stubs that grpcio's and betterproto2's plugins have generated, as they are."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest

from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import echo
from tests.protos.echo_pb2 import EchoRequest
from tests.stubs.generated import EchoStub

pytestmark = pytest.mark.process

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(params=["own connection", "shared connection"])
def client(request):
    shared = request.param == "shared connection"
    with plugin_client_sync(echo("--loop", "trio"), multiplex_grpc=shared) as client:
        yield client


@pytest.fixture
def stub(client):
    return EchoStub(client.grpc_channel)


def test_all_kinds_of_methods(stub):
    assert stub.Unary(EchoRequest(text="hello"), timeout=60).text == "hello"
    assert [reply.index for reply in stub.ServerStream(EchoRequest(count=3))] == [0, 1, 2]
    assert stub.ClientStream(iter([EchoRequest()] * 4), metadata=(("key", "value"),)).index == 4
    assert [reply.text for reply in stub.Bidi(EchoRequest(text=t) for t in "ab")] == ["a", "b"]
    assert stub.Unary(EchoRequest(text="x"), wait_for_ready=True).text == "x"
    gzip = grpc.Compression.Gzip
    assert stub.Unary(EchoRequest(text="x" * 1000), compression=gzip).text == "x" * 1000
    assert len(stub.Unary(EchoRequest(text="x" * 1_000_000), compression=gzip).text) == 1_000_000
    assert stub.ClientStream(iter([EchoRequest()]), compression=gzip).index == 1


def test_what_a_call_tells_of_itself(stub):
    reply, call = stub.Unary.with_call(EchoRequest(text="hello"), timeout=60)
    assert reply.text == "hello"
    assert call.code() is grpc.StatusCode.OK
    assert call.details() == ""
    assert dict(call.initial_metadata()) == {}
    assert dict(call.trailing_metadata()) == {}
    assert not call.is_active()
    assert not call.cancel()
    assert 0 < call.time_remaining() <= 60
    reply, call = stub.ClientStream.with_call(iter([EchoRequest()] * 2))
    assert reply.index == 2
    assert call.time_remaining() is None
    replies = stub.ServerStream(EchoRequest(count=2))
    ended = []
    assert replies.is_active()
    assert replies.add_callback(lambda: ended.append(True))
    assert replies.initial_metadata() == ()
    assert len(list(replies)) == 2
    assert ended == [True]
    assert not replies.add_callback(lambda: ended.append(True))
    assert replies.code() is grpc.StatusCode.OK
    assert list(replies) == []


def test_errors_are_those_of_grpcio(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Unary(EchoRequest(text="hang"), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError) as caught:
        stub.Unary("no message")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "Exception serializing request!"
    replies = stub.ServerStream(EchoRequest(text="hang", count=1), timeout=1)
    next(replies)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert replies.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    nothing = stub.Unary._current, "/testing.echo.Echo/Nothing", bytes, bytes
    for kind, request in (
        (type(stub.Unary), b""),
        (type(stub.ClientStream), iter([b""])),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            kind(*nothing)(request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for kind, request in (
        (type(stub.ServerStream), b""),
        (type(stub.Bidi), iter([b""])),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            list(kind(*nothing)(request))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        stub.Unary(EchoRequest(text="kill"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "SIGKILL" in caught.value.details()


def test_cancelling_ends_a_stream_from_any_thread(stub):
    replies = stub.ServerStream(EchoRequest(text="hang", count=1))
    next(replies)
    timer = threading.Timer(0.05, replies.cancel)
    timer.start()
    with pytest.raises(grpc.RpcError) as caught:
        next(replies)
    timer.join()
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert caught.value.details() == "Locally cancelled by application!"
    replies = stub.ServerStream(EchoRequest(text="hang", count=1))
    next(replies)
    del replies
    gc.collect()
    assert stub.Unary(EchoRequest(text="still")).text == "still"


def test_futures(stub):
    futures = [stub.Unary.future(EchoRequest(text=str(number))) for number in range(5)]
    heard = threading.Event()
    futures[0].add_done_callback(lambda future: heard.set())
    assert [future.result(60).text for future in futures] == list("01234")
    assert heard.wait(60)
    assert futures[0].done()
    assert futures[0].code() is grpc.StatusCode.OK
    assert futures[0].exception() is None
    assert stub.ClientStream.future(iter([EchoRequest()] * 3)).result(60).index == 3
    hanging = stub.Unary.future(EchoRequest(text="hang"))
    with pytest.raises(TimeoutError):
        hanging.result(0.05)
    assert hanging.running()
    assert hanging.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        hanging.result(60)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert hanging.cancelled()
    assert hanging.traceback() is not None


def test_the_stub_by_name(client):
    stub = client.stub(EchoStub)
    assert stub.Unary(EchoRequest(text="hello")).text == "hello"


def test_betterproto2_in_its_blocking_form(client):
    pytest.importorskip("betterproto2")
    from tests.forms.betterproto_blocking.testing.echo import (
        EchoRequest as Request,
        EchoStub as Stub,
    )

    stub = client.stub(Stub)
    assert stub.unary(Request(text="hello")).text == "hello"
    assert [reply.index for reply in stub.server_stream(Request(count=3))] == [0, 1, 2]
    assert stub.client_stream([Request()] * 4).index == 4
    assert [reply.text for reply in stub.bidi(Request(text=t) for t in "ab")] == ["a", "b"]
    with pytest.raises(grpc.RpcError):
        stub.unary("no message")


WITHOUT = """
import sys
sys.path.insert(0, {root!r})
sys.modules["grpc"] = None
from pyvider_rpcplugin.sync import plugin_client_sync
from pyvider_rpcplugin.rpc._grpcio import AioRpcError
from tests.plugins import echo
from tests.protos.echo_pb2 import EchoReply, EchoRequest

with plugin_client_sync(echo()) as client:
    unary = client.grpc_channel.unary_unary(
        "/testing.echo.Echo/Unary", EchoRequest.SerializeToString, EchoReply.FromString
    )
    print(unary(EchoRequest(text="hello")).text)
    try:
        unary(EchoRequest(text="hang"), timeout=0.05)
    except AioRpcError as error:
        print(error.code().name)
"""


def test_nothing_needs_grpcio():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT.format(root=ROOT)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["hello", "DEADLINE_EXCEEDED"]
