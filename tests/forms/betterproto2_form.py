"""The echo service and its client by what betterproto2's compiler generates with its async options.

Its stub of a method that streams both ways makes a task of asyncio's by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
import sniffio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.forms.betterproto.testing.echo import EchoBase, EchoReply, EchoRequest, EchoStub
from tests.forms.conduct import REASON, REFUSED, TEXTS


class Echo(EchoBase):
    async def unary(self, message):
        if message.text == REFUSED:
            raise GRPCError(Status.FAILED_PRECONDITION, REASON)
        if message.text == "wait":
            await anyio.Event().wait()
        return EchoReply(data=message.data, text=message.text)

    async def server_stream(self, message):
        for index in range(message.count):
            yield EchoReply(text=message.text, index=index)

    async def client_stream(self, messages):
        texts = [message.text async for message in messages]
        return EchoReply(text="".join(texts), index=len(texts))

    async def bidi(self, messages):
        index = 0
        async for message in messages:
            yield EchoReply(text=message.text, index=index)
            index += 1


async def conduct(client):
    stub = client.stub(EchoStub)
    reply = await stub.unary(EchoRequest(text="hello", data=b"\x00\xff"))
    seen: dict[str, Any] = {"unary": (reply.text, reply.data, reply.index)}
    replies = stub.server_stream(EchoRequest(text="hello", count=3))
    seen["server stream"] = [(reply.text, reply.index) async for reply in replies]
    reply = await stub.client_stream([EchoRequest(text=text) for text in TEXTS])
    seen["client stream"] = (reply.text, reply.index)
    if sniffio.current_async_library() == "asyncio":
        replies = stub.bidi([EchoRequest(text=text) for text in TEXTS])
        seen["bidi"] = [(reply.text, reply.index) async for reply in replies]
    try:
        await stub.unary(EchoRequest(text=REFUSED))
    except GRPCError as error:
        seen["refused"] = (error.status.name, error.message)
    try:
        await stub.unary(EchoRequest(text="wait"), timeout=0.01)
    except GRPCError as error:
        seen["late"] = error.status.name
    return seen


if __name__ == "__main__":
    from pyvider_rpcplugin import plugin_server

    plugin_server(handler=Echo()).run("trio" if sys.argv[1:] == ["trio"] else "asyncio")
