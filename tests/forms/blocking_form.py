"""Programs without an event loop: the stubs of grpcio and of betterproto2 in their plain forms.

Each starts a client of its own, since the one of an event loop is not for it.
"""

from __future__ import annotations

from typing import Any

import grpc  # type: ignore[import-untyped]
from anyio import to_thread

from pyvider_rpcplugin.sync import plugin_client_sync
from tests.forms.betterproto_blocking.testing import echo as betterproto2
from tests.forms.conduct import REFUSED, TEXTS
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoRequest


async def conduct_grpcio(client: Any) -> dict[str, Any]:
    return await to_thread.run_sync(_conduct_grpcio, client.command)


async def conduct_betterproto2(client: Any) -> dict[str, Any]:
    return await to_thread.run_sync(_conduct_betterproto2, client.command)


def _conduct_grpcio(command: list[str]) -> dict[str, Any]:
    with plugin_client_sync(command) as client:
        stub = client.stub(echo_pb2_grpc.EchoStub)
        reply = stub.Unary(EchoRequest(text="hello", data=b"\x00\xff"))
        seen: dict[str, Any] = {"unary": (reply.text, reply.data, reply.index)}
        replies = stub.ServerStream(EchoRequest(text="hello", count=3))
        seen["server stream"] = [(reply.text, reply.index) for reply in replies]
        reply = stub.ClientStream(EchoRequest(text=text) for text in TEXTS)
        seen["client stream"] = (reply.text, reply.index)
        replies = stub.Bidi(EchoRequest(text=text) for text in TEXTS)
        seen["bidi"] = [(reply.text, reply.index) for reply in replies]
        seen["refused"] = _failure(lambda: stub.Unary(EchoRequest(text=REFUSED)))
        seen["late"] = _failure(lambda: stub.Unary(EchoRequest(text="wait"), timeout=0.01))[0]
        return seen


def _conduct_betterproto2(command: list[str]) -> dict[str, Any]:
    with plugin_client_sync(command, default_deadline=5) as client:
        stub = client.stub(betterproto2.EchoStub)
        request = betterproto2.EchoRequest
        reply = stub.unary(request(text="hello", data=b"\x00\xff"))
        seen: dict[str, Any] = {"unary": (reply.text, reply.data, reply.index)}
        replies = stub.server_stream(request(text="hello", count=3))
        seen["server stream"] = [(reply.text, reply.index) for reply in replies]
        reply = stub.client_stream([request(text=text) for text in TEXTS])
        seen["client stream"] = (reply.text, reply.index)
        replies = stub.bidi([request(text=text) for text in TEXTS])
        seen["bidi"] = [(reply.text, reply.index) for reply in replies]
        seen["refused"] = _failure(lambda: stub.unary(request(text=REFUSED)))
    # Its calls take no timeout: the client's is theirs.
    with plugin_client_sync(command, default_deadline=0.05) as client:
        stub = client.stub(betterproto2.EchoStub)
        seen["late"] = _failure(lambda: stub.unary(request(text="wait")))[0]
        return seen


def _failure(call: Any) -> tuple[str, str]:
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    msg = "the call succeeded"
    raise AssertionError(msg)
