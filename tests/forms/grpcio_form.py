"""The echo service and its client by what grpcio-tools generates, written for `grpc.aio`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
import grpc  # type: ignore[import-untyped]

from tests.forms.conduct import REASON, REFUSED, TEXTS
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.protos.echo_pb2_grpc import EchoServicer, EchoStub


class Echo(EchoServicer):
    async def Unary(self, request, context):
        if request.text == REFUSED:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, REASON)
        if request.text == "wait":
            await anyio.Event().wait()
        return EchoReply(data=request.data, text=request.text)

    async def ServerStream(self, request, context):
        for index in range(request.count):
            yield EchoReply(text=request.text, index=index)

    async def ClientStream(self, request_iterator, context):
        texts = [request.text async for request in request_iterator]
        return EchoReply(text="".join(texts), index=len(texts))

    async def Bidi(self, request_iterator, context):
        index = 0
        async for request in request_iterator:
            yield EchoReply(text=request.text, index=index)
            index += 1


async def conduct(client):
    stub = client.stub(EchoStub)
    reply = await stub.Unary(EchoRequest(text="hello", data=b"\x00\xff"))
    seen: dict[str, Any] = {"unary": (reply.text, reply.data, reply.index)}
    replies = stub.ServerStream(EchoRequest(text="hello", count=3))
    seen["server stream"] = [(reply.text, reply.index) async for reply in replies]
    reply = await stub.ClientStream(EchoRequest(text=text) for text in TEXTS)
    seen["client stream"] = (reply.text, reply.index)
    replies = stub.Bidi(EchoRequest(text=text) for text in TEXTS)
    seen["bidi"] = [(reply.text, reply.index) async for reply in replies]
    try:
        await stub.Unary(EchoRequest(text=REFUSED))
    except grpc.aio.AioRpcError as error:
        seen["refused"] = (error.code().name, error.details())
    try:
        await stub.Unary(EchoRequest(text="wait"), timeout=0.01)
    except grpc.RpcError as error:
        seen["late"] = error.code().name
    return seen


if __name__ == "__main__":
    from pyvider_rpcplugin import plugin_server

    plugin_server(handler=Echo()).run("trio" if sys.argv[1:] == ["trio"] else "asyncio")
