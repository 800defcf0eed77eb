"""grpcio's asyncio API."""

# mypy: ignore-errors
# grpcio comes without annotations, and so does the code that it generates.

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from tests.bench.protos.echo_pb2 import Message
from tests.bench.protos.echo_pb2_grpc import EchoServicer, EchoStub, add_EchoServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Echo(EchoServicer):
    async def Unary(self, request, context):
        return request

    async def ServerStream(self, request, context):
        for _ in range(int.from_bytes(request.data[:4], "big")):
            yield request

    async def ClientStream(self, request_iterator, context):
        total = 0
        async for message in request_iterator:
            total += len(message.data)
        return Message(data=b"%d" % total)

    async def Bidi(self, request_iterator, context):
        async for message in request_iterator:
            yield message


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    async def main() -> None:
        server = grpc.aio.server()
        add_EchoServicer_to_server(Echo(), server)
        server.add_insecure_port(f"unix:{address}")
        await server.start()
        ready()
        await server.wait_for_termination()

    asyncio.run(main())


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[GrpcioCaller]:
    async with grpc.aio.insecure_channel(f"unix:{address}") as channel:
        yield GrpcioCaller(channel)


class GrpcioCaller:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = EchoStub(channel)

    async def unary(self, payload: bytes, count: int) -> None:
        call = self._stub.Unary
        message = Message(data=payload)
        reply = None
        for _ in range(count):
            reply = await call(message)
        assert reply == message

    async def server_stream(self, payload: bytes, count: int) -> None:
        received = 0
        request = Message(data=count.to_bytes(4, "big") + payload[4:])
        async for _ in self._stub.ServerStream(request):
            received += 1
        assert received == count

    async def client_stream(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        call = self._stub.ClientStream()
        for _ in range(count):
            await call.write(message)
        await call.done_writing()
        reply = await call
        assert reply.data == b"%d" % (count * len(payload))

    async def ping_pong(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        call = self._stub.Bidi()
        for _ in range(count):
            await call.write(message)
            reply = await call.read()
            assert reply is not grpc.aio.EOF
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
