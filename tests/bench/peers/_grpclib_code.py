"""Both sides of the service as grpclib's users write them: grpclib and we run the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.protos.echo_grpc import EchoBase, EchoStub
from tests.bench.protos.echo_pb2 import Message

if TYPE_CHECKING:
    from grpclib.client import Channel
    from grpclib.server import Stream


class Echo(EchoBase):
    async def Unary(self, stream: Stream[Message, Message]) -> None:
        message = await stream.recv_message()
        assert message is not None
        await stream.send_message(message)

    async def ServerStream(self, stream: Stream[Message, Message]) -> None:
        message = await stream.recv_message()
        assert message is not None
        for _ in range(int.from_bytes(message.data[:4], "big")):
            await stream.send_message(message)

    async def ClientStream(self, stream: Stream[Message, Message]) -> None:
        total = 0
        while (message := await stream.recv_message()) is not None:
            total += len(message.data)
        await stream.send_message(Message(data=b"%d" % total))

    async def Bidi(self, stream: Stream[Message, Message]) -> None:
        while (message := await stream.recv_message()) is not None:
            await stream.send_message(message)


class GrpclibCaller:
    def __init__(self, channel: Channel) -> None:
        self.stub = EchoStub(channel)

    async def unary(self, payload: bytes, count: int) -> None:
        call = self.stub.Unary
        message = Message(data=payload)
        reply: Message | None = None
        for _ in range(count):
            reply = await call(message)
        assert reply == message

    async def server_stream(self, payload: bytes, count: int) -> None:
        received = 0
        async with self.stub.ServerStream.open() as stream:
            request = Message(data=count.to_bytes(4, "big") + payload[4:])
            await stream.send_message(request, end=True)
            while await stream.recv_message() is not None:
                received += 1
        assert received == count

    async def client_stream(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        async with self.stub.ClientStream.open() as stream:
            for _ in range(count - 1):
                await stream.send_message(message)
            await stream.send_message(message, end=True)
            reply = await stream.recv_message()
        assert reply is not None
        assert reply.data == b"%d" % (count * len(payload))

    async def ping_pong(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        async with self.stub.Bidi.open() as stream:
            for _ in range(count):
                await stream.send_message(message)
                assert await stream.recv_message() is not None
            await stream.end()
            assert await stream.recv_message() is None
