"""The echo service with the behaviours that the interop tests ask for, by grpclib's contract.

Our server runs it in the tests, and grpclib's in a process of its own. What a handler does is said
by the text of the request:

    status:CODE:MESSAGE   ends with that status
    details               ends with a status that has details
    hang:KEY              never ends; says so under KEY when it is cancelled
    cancelled:KEY         waits until that has happened
    size:NUMBER           replies with so many octets
    gzip, deflate         replies with a compressed message

Metadata `x-grpc-test-echo-initial` and `x-grpc-test-echo-trailing-bin` are sent back.
"""

from __future__ import annotations

from typing import Any

import anyio
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.protos.echo_grpc import EchoBase
from tests.protos.echo_pb2 import EchoReply, EchoRequest

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"


class Interop(EchoBase):
    """The service."""

    def __init__(self) -> None:
        self._cancelled: dict[str, anyio.Event] = {}

    def _event(self, key: str) -> anyio.Event:
        return self._cancelled.setdefault(key, anyio.Event())

    async def _obey(self, stream: Any, request: EchoRequest) -> None:
        what, _, rest = request.text.partition(":")
        if what == "status":
            code, _, message = rest.partition(":")
            raise GRPCError(Status(int(code)), message)
        if what == "details":
            raise GRPCError(Status.ABORTED, "see details", [ErrorInfo(reason="r", domain="d")])
        if what == "hang":
            try:
                await anyio.Event().wait()
            finally:
                self._event(rest).set()
        if what == "cancelled":
            await self._event(rest).wait()
        if what in {"gzip", "deflate"} and hasattr(stream, "set_compression"):
            stream.set_compression(what)

    @staticmethod
    def _reply(request: EchoRequest, index: int = 0) -> EchoReply:
        what, _, rest = request.text.partition(":")
        data = bytes(int(rest)) if what == "size" else request.data
        return EchoReply(data=data, text=request.text, index=index)

    @staticmethod
    async def _begin(stream: Any) -> None:
        if INITIAL in stream.metadata:
            await stream.send_initial_metadata(metadata={INITIAL: stream.metadata[INITIAL]})

    @staticmethod
    async def _end(stream: Any) -> None:
        if TRAILING in stream.metadata:
            await stream.send_trailing_metadata(metadata={TRAILING: stream.metadata[TRAILING]})

    async def Unary(self, stream: Any) -> None:
        await self._begin(stream)
        request = await stream.recv_message()
        await self._obey(stream, request)
        await stream.send_message(self._reply(request))
        await self._end(stream)

    async def ServerStream(self, stream: Any) -> None:
        request = await stream.recv_message()
        compressed = request.text in {"gzip", "deflate"}
        if compressed:
            await self._obey(stream, request)
        for index in range(request.count):
            await stream.send_message(self._reply(request, index))
        if not compressed:
            await self._obey(stream, request)

    async def ClientStream(self, stream: Any) -> None:
        data = b""
        texts = []
        async for request in stream:
            await self._obey(stream, request)
            data += request.data
            texts.append(request.text)
        await stream.send_message(EchoReply(data=data, text="".join(texts), index=len(texts)))

    async def Bidi(self, stream: Any) -> None:
        await self._begin(stream)
        index = 0
        async for request in stream:
            await self._obey(stream, request)
            await stream.send_message(self._reply(request, index))
            index += 1
        await self._end(stream)
