"""The echo service and its client by what grpclib generates; run as a program, it is a plugin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.forms.conduct import REASON, REFUSED, TEXTS
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest


class Echo(EchoBase):
    async def Unary(self, stream):
        request = await stream.recv_message()
        if request.text == REFUSED:
            raise GRPCError(Status.FAILED_PRECONDITION, REASON)
        if request.text == "wait":
            await anyio.Event().wait()
        await stream.send_message(EchoReply(data=request.data, text=request.text))

    async def ServerStream(self, stream):
        request = await stream.recv_message()
        for index in range(request.count):
            await stream.send_message(EchoReply(text=request.text, index=index))

    async def ClientStream(self, stream):
        texts = [request.text async for request in stream]
        await stream.send_message(EchoReply(text="".join(texts), index=len(texts)))

    async def Bidi(self, stream):
        index = 0
        async for request in stream:
            await stream.send_message(EchoReply(text=request.text, index=index))
            index += 1


async def conduct(client):
    stub = client.stub(EchoStub)
    reply = await stub.Unary(EchoRequest(text="hello", data=b"\x00\xff"))
    seen: dict[str, Any] = {"unary": (reply.text, reply.data, reply.index)}
    replies = await stub.ServerStream(EchoRequest(text="hello", count=3))
    seen["server stream"] = [(reply.text, reply.index) for reply in replies]
    reply = await stub.ClientStream([EchoRequest(text=text) for text in TEXTS])
    seen["client stream"] = (reply.text, reply.index)
    replies = await stub.Bidi([EchoRequest(text=text) for text in TEXTS])
    seen["bidi"] = [(reply.text, reply.index) for reply in replies]
    try:
        await stub.Unary(EchoRequest(text=REFUSED))
    except GRPCError as error:
        seen["refused"] = (error.status.name, error.message)
    try:
        await stub.Unary(EchoRequest(text="wait"), timeout=0.01)
    except GRPCError as error:
        seen["late"] = error.status.name
    return seen


if __name__ == "__main__":
    from pyvider_rpcplugin import plugin_server

    plugin_server(handler=Echo()).run("trio" if sys.argv[1:] == ["trio"] else "asyncio")
