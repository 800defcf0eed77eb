"""Clients that keep their plugins running, in programs without an event loop."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pyvider_rpcplugin import PoolPolicy, RestartPolicy
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process


def test_a_plugin_that_dies_is_started_again():
    with plugin_client_sync(echo(), restart=RestartPolicy()) as client:
        stub = client.stub(EchoStub)
        first = int(stub.Unary(EchoRequest(text="pid")).text)
        os.kill(first, signal.SIGKILL)
        limit = time.monotonic() + 60
        while client.pid in {first, None}:
            assert time.monotonic() < limit
            time.sleep(0.01)
        assert int(stub.Unary(EchoRequest(text="pid"), timeout=60).text) != first


def test_a_plugin_that_starts_with_the_first_call():
    with plugin_client_sync(echo(), lazy=True) as client:
        assert client.pid is None
        assert client.stub(EchoStub).Unary(EchoRequest(text="hello")).text == "hello"
        assert client.pid is not None


def test_a_pool_shares_the_calls():
    with plugin_client_sync(echo(), pool=PoolPolicy(size=2)) as client:
        stub = client.stub(EchoStub)
        replies = [stub.ServerStream(EchoRequest(text="hang", count=1)) for _ in range(4)]
        for reply in replies:
            next(reply)
        for reply in replies:
            reply.close()
        assert stub.Unary(EchoRequest(text="hello")).text == "hello"
