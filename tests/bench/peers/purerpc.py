"""purerpc, over a Unix socket: its own server and channel know only TCP.

What they do with a TCP stream is done here with a Unix one; the options of a TCP socket that it
sets are left out.
"""

# mypy: ignore-errors
# purerpc has no annotations, and is installed in an environment of its own.

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from purerpc.grpc_proto import GRPCProtoSocket
from purerpc.grpc_socket import SocketWrapper
from purerpc.grpclib.config import GRPCConfiguration
from purerpc.server import ConnectionHandler, Server

from tests.bench.protos.echo_pb2 import Message
from tests.bench.protos.echo_purerpc_grpc import EchoServicer, EchoStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SocketWrapper._set_socket_options = staticmethod(lambda stream: None)


class Echo(EchoServicer):
    async def Unary(self, input_message):
        return input_message

    async def ServerStream(self, input_message):
        for _ in range(int.from_bytes(input_message.data[:4], "big")):
            yield input_message

    async def ClientStream(self, input_messages):
        total = 0
        async for message in input_messages:
            total += len(message.data)
        return Message(data=b"%d" % total)

    async def Bidi(self, input_messages):
        async for message in input_messages:
            yield message


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    async def main() -> None:
        service = Echo().service
        handler = ConnectionHandler({service.name: service}, Server())
        async with await anyio.create_unix_listener(address) as listener:
            ready()
            await listener.serve(handler)

    anyio.run(main, backend=backend)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[PurerpcCaller]:
    stream = await anyio.connect_unix(address)
    async with GRPCProtoSocket(GRPCConfiguration(client_side=True), stream) as connection:
        yield PurerpcCaller(_Channel(connection))


class _Channel:
    """What purerpc's client reads of a channel."""

    _host = "localhost"
    _port = 0

    def __init__(self, connection: GRPCProtoSocket) -> None:
        self._grpc_socket = connection


class PurerpcCaller:
    def __init__(self, channel: _Channel) -> None:
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

        async def messages():
            for _ in range(count):
                yield message

        reply = await self._stub.ClientStream(messages())
        assert reply.data == b"%d" % (count * len(payload))

    async def ping_pong(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        stream = await self._stub.Bidi()
        for _ in range(count):
            await stream.send_message(message)
            assert await stream.receive_message() is not None
        await stream.close()
        assert await stream.receive_message() is None
