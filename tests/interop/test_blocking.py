"""Our blocking client and grpcio's server."""

from __future__ import annotations

import threading

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.rpc import DeadlineExceeded
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("link", ["unix", "tcp"])
def test_our_blocking_client_to_their_server(link: str, grpcio_server: dict[str, str]) -> None:
    address = grpcio_server[link]
    with plugin_client_sync(address=address, auto_mtls=False) as client:
        stub = client.stub(EchoStub)
        data = bytes(range(256)) * 4096
        assert stub.Unary(EchoRequest(data=data)).data == data
        assert [reply.index for reply in stub.ServerStream(EchoRequest(count=50))] == [*range(50)]
        assert len(stub.ClientStream([EchoRequest(data=data)] * 3).data) == 3 * len(data)
        replies = stub.Bidi(EchoRequest(data=data) for _ in range(5))
        assert [len(reply.data) for reply in replies] == [len(data)] * 5
        with pytest.raises(GRPCError) as caught:
            stub.Unary(EchoRequest(text="status:9:nicht möglich"))
        assert (caught.value.status, caught.value.message) == (
            Status.FAILED_PRECONDITION,
            "nicht möglich",
        )
        with pytest.raises(DeadlineExceeded):
            stub.Unary(EchoRequest(text=f"hang:blocking-{link}"), timeout=0.1)
        # It has heard that nobody waits any more.
        stub.Unary(EchoRequest(text=f"cancelled:blocking-{link}"), timeout=10)

        def work() -> None:
            for number in range(20):
                assert stub.Unary(EchoRequest(text=str(number)), timeout=20).text == str(number)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
