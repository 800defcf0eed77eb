"""The echo service as a plain class, which answers MessagePack and Protocol Buffers; and its client."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.forms.conduct import REASON, REFUSED, TEXTS

SERVICE = "testing.echo.Echo"

# The numbers and names are those of tests/protos/echo.proto: so its stubs call this class, too.
Texts = AsyncIterator[Annotated[str, msgspec.Meta(extra={"field": 2})]]


class EchoReply(msgspec.Struct):
    data: bytes = b""
    text: str = ""
    index: int = 0


class Echo:
    async def Unary(self, data: bytes = b"", text: str = "", count: int = 0) -> EchoReply:
        if text == REFUSED:
            raise GRPCError(Status.FAILED_PRECONDITION, REASON)
        if text == "wait":
            await anyio.Event().wait()
        return EchoReply(data, text)

    async def ServerStream(
        self, data: bytes = b"", text: str = "", count: int = 0
    ) -> AsyncIterator[EchoReply]:
        for index in range(count):
            yield EchoReply(text=text, index=index)

    async def ClientStream(self, texts: Texts) -> EchoReply:
        got = [text async for text in texts]
        return EchoReply(text="".join(got), index=len(got))

    async def Bidi(self, texts: Texts) -> AsyncIterator[EchoReply]:
        index = 0
        async for text in texts:
            yield EchoReply(text=text, index=index)
            index += 1


async def all_texts() -> AsyncIterator[str]:
    for text in TEXTS:
        yield text


async def conduct(client):
    echo = client.proxy(Echo, service_name=SERVICE)
    reply = await echo.Unary(b"\x00\xff", "hello")
    seen: dict[str, Any] = {"unary": (reply.text, reply.data, reply.index)}
    replies = echo.ServerStream(text="hello", count=3)
    seen["server stream"] = [(reply.text, reply.index) async for reply in replies]
    reply = await echo.ClientStream(all_texts())
    seen["client stream"] = (reply.text, reply.index)
    seen["bidi"] = [(reply.text, reply.index) async for reply in echo.Bidi(all_texts())]
    try:
        await echo.Unary(text=REFUSED)
    except GRPCError as error:
        seen["refused"] = (error.status.name, error.message)
    try:
        await client.proxy(Echo, service_name=SERVICE, timeout=0.01).Unary(text="wait")
    except GRPCError as error:
        seen["late"] = error.status.name
    return seen


if __name__ == "__main__":
    from pyvider_rpcplugin import plugin_protocol, plugin_server

    server = plugin_server(plugin_protocol(service_name=SERVICE), Echo())
    server.run("trio" if sys.argv[1:] == ["trio"] else "asyncio")
