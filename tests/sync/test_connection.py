"""The connection that threads drive: lost and made again, probed, and shared by interceptors' calls."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.rpc import ConnectionLost, DeadlineExceeded
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import echo, until_listening
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process


def connection_of(client) -> Any:
    return client._runtime.driver._one


@contextlib.contextmanager
def server(path):
    """A standalone server at a path."""
    words = echo("--standalone", "--transport", "unix", "--path", str(path))
    with subprocess.Popen(words) as process:
        try:
            until_listening(path)
            yield process
        finally:
            process.kill()
            process.wait()
            path.unlink(missing_ok=True)


def test_a_connection_is_made_again_when_the_server_is_another_one(tmp_path):
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server(path))
        client = stack.enter_context(plugin_client_sync(address=str(path), auto_mtls=False))
        stub = client.stub(EchoStub)
        before = stub.Unary(EchoRequest(text="pid")).text
        errors = []

        def hang():
            with pytest.raises(ConnectionLost) as caught:
                stub.Unary(EchoRequest(text="hang"))
            errors.append(caught.value)

        thread = threading.Thread(target=hang)
        thread.start()
        while len(connection_of(client).h2.streams) == 0:
            time.sleep(0.001)
        first.kill()
        first.wait()
        thread.join(60)
        assert [error.exit for error in errors] == [None]
        with pytest.raises(ConnectionLost, match="connect"):
            stub.Unary(EchoRequest(), timeout=60)
        path.unlink()
        stack.enter_context(server(path))
        assert stub.Unary(EchoRequest(text="pid"), timeout=60).text != before


def test_a_server_that_goes_away_in_order_ends_no_call(tmp_path):
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server(path))
        client = stack.enter_context(plugin_client_sync(address=str(path), auto_mtls=False))
        stub = client.stub(EchoStub)
        with stub.Bidi.open() as call:
            call.send_message(EchoRequest(text="before"))
            assert call.recv_message() is not None
            first.terminate()  # It sends GOAWAY, and lets calls finish.
            limit = time.monotonic() + 60
            while not connection_of(client).draining:
                assert time.monotonic() < limit
                time.sleep(0.01)  # The background thread takes it in.
            call.send_message(EchoRequest(text="after"))
            reply = call.recv_message()
            assert reply is not None
            assert reply.text == "after"
            call.end()
            assert call.recv_message() is None
        first.wait()


def test_a_plugin_that_does_not_answer_probes_is_given_up():
    with plugin_client_sync(
        echo(), grpc_keepalive_time_ms=100, grpc_keepalive_timeout_ms=1500
    ) as client:
        stub = client.stub(EchoStub)
        assert stub.Unary(EchoRequest(text="x")).text == "x"
        assert client.pid is not None
        os.kill(client.pid, signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionLost, match="PING"):
                stub.Unary(EchoRequest(text="hang"), timeout=60)
        finally:
            os.kill(client.pid, signal.SIGCONT)
        assert stub.Unary(EchoRequest(text="again"), timeout=60).text == "again"


def test_more_calls_than_the_plugin_takes_wait_for_their_turn():
    with plugin_client_sync(echo(), env={"PLUGIN_MAX_CONCURRENT_STREAMS": "3"}) as client:
        stub = client.stub(EchoStub)
        stub.Unary(EchoRequest())
        held = [stub.ServerStream(EchoRequest(text="hang", count=1)) for _ in range(3)]
        for replies in held:
            next(replies)
        with pytest.raises(DeadlineExceeded):
            stub.Unary(EchoRequest(), timeout=0.1)
        results = []
        thread = threading.Thread(
            target=lambda: results.append(stub.Unary(EchoRequest(text="in turn"), timeout=60).text)
        )
        thread.start()
        held.pop().close()
        thread.join(60)
        assert results == ["in turn"]
        for replies in held:
            replies.close()


def test_interceptors_and_default_deadlines_hold_for_blocking_calls():
    seen = []

    async def interceptor(call):
        seen.append(call.method)
        call.metadata["key"] = "value"

    with plugin_client_sync(echo(), interceptors=[interceptor], default_deadline=0.2) as client:
        stub = client.stub(EchoStub)
        assert stub.Unary(EchoRequest(text="x"), timeout=60).text == "x"
        assert len(list(stub.ServerStream(EchoRequest(count=2), timeout=60))) == 2
        with pytest.raises(DeadlineExceeded):
            stub.Unary(EchoRequest(text="hang"))
    assert seen[:2] == ["/testing.echo.Echo/Unary", "/testing.echo.Echo/ServerStream"]

    async def refuse(call):
        raise GRPCError(Status.PERMISSION_DENIED, "not you")

    with plugin_client_sync(echo(), interceptors=[refuse]) as client:
        with pytest.raises(GRPCError, match="not you"):
            client.stub(EchoStub).Unary(EchoRequest())
