"""The echo service as a plain class, and its client as a proxy."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.forms.conduct import REASON, REFUSED, TEXTS


class Echo:
    async def unary(self, text: str, data: bytes = b"") -> tuple[str, bytes, int]:
        if text == REFUSED:
            raise GRPCError(Status.FAILED_PRECONDITION, REASON)
        if text == "wait":
            await anyio.Event().wait()
        return text, data, 0

    async def server_stream(self, text: str, count: int) -> AsyncIterator[tuple[str, int]]:
        for index in range(count):
            yield text, index

    async def client_stream(self, texts: AsyncIterator[str]) -> tuple[str, int]:
        got = [text async for text in texts]
        return "".join(got), len(got)

    async def bidi(self, texts: AsyncIterator[str]) -> AsyncIterator[tuple[str, int]]:
        index = 0
        async for text in texts:
            yield text, index
            index += 1


async def all_texts() -> AsyncIterator[str]:
    for text in TEXTS:
        yield text


async def conduct(client):
    echo = client.proxy(Echo)
    seen: dict[str, Any] = {"unary": await echo.unary("hello", b"\x00\xff")}
    seen["server stream"] = [reply async for reply in echo.server_stream("hello", 3)]
    seen["client stream"] = await echo.client_stream(all_texts())
    seen["bidi"] = [reply async for reply in echo.bidi(all_texts())]
    try:
        await echo.unary(REFUSED)
    except GRPCError as error:
        seen["refused"] = (error.status.name, error.message)
    try:
        await client.proxy(Echo, timeout=0.01).unary("wait")
    except GRPCError as error:
        seen["late"] = error.status.name
    return seen


if __name__ == "__main__":
    from pyvider_rpcplugin import plugin_server

    plugin_server(handler=Echo()).run("trio" if sys.argv[1:] == ["trio"] else "asyncio")
