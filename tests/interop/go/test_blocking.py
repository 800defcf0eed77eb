"""A host in Python without an event loop, with a plugin in Go: it accepts a second connection."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from pyvider_rpcplugin.rpc import ConnectionLost, DeadlineExceeded
from pyvider_rpcplugin.sync import SyncPluginClient

from .proto.peer_grpc import PeerStub
from .proto.peer_pb2 import Failure, Key, Pair, RepeatRequest
from .python_host import go_plugin

pytestmark = [
    pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


@pytest.mark.parametrize("multiplexed", [False, True], ids=["own connection", "shared connection"])
def test_calls_of_every_kind(go_programs: Path, mtls: bool, multiplexed: bool) -> None:
    host = go_plugin(go_programs, mtls=mtls, multiplex_grpc=multiplexed)
    with SyncPluginClient(host) as client:
        stub = client.stub(PeerStub)
        client.ping(timeout=5)
        stub.Put(Pair(key="ключ", value=b"a value\0\xff"))
        pair = stub.Get(Key(key="ключ"))
        assert (pair.value, pair.version) == (b"a value\0\xff", 1)
        assert list(stub.Repeat(RepeatRequest(pair=pair, count=100))) == [pair] * 100
        assert stub.Collect([Pair(key=key) for key in "abc"]).key == "a b c"
        assert [reply.key for reply in stub.Echo(Pair(key=key) for key in "abc")] == list("abc")
        large = Pair(key="large", value=bytes(3 << 20))
        stub.Put(large)
        assert stub.Get(Key(key="large")).value == large.value
        assert [len(reply.value) for reply in stub.Echo([large] * 3)] == [3 << 20] * 3
        with pytest.raises(GRPCError) as caught:
            stub.Fail(Failure(code=9, message="nicht möglich: 100 %"))
        assert caught.value.status is Status.FAILED_PRECONDITION
        assert caught.value.message == "nicht möglich: 100 %"
        with pytest.raises(DeadlineExceeded):
            list(stub.Repeat(RepeatRequest(hang=True), timeout=0.05))
    assert client.exit is not None
    assert client.exit.status == 0


def test_a_plugin_killed_in_the_middle_of_a_call(go_programs: Path, mtls: bool) -> None:
    with SyncPluginClient(go_plugin(go_programs, mtls=mtls)) as client:
        replies = client.stub(PeerStub).Repeat(RepeatRequest(pair=Pair(), count=1, hang=True))
        next(replies)
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(ConnectionLost) as caught:
            next(replies)
        assert caught.value.exit_status == -9
