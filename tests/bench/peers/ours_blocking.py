"""This library's engine, driven by the calling threads; its server is that of `ours`."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from pyvider_rpcplugin.rpc._blocking import BlockingChannel
from pyvider_rpcplugin.rpc._blocking_calls import make_blocking
from pyvider_rpcplugin.transport import BlockingSocket
from tests.bench.peers.ours import serve
from tests.bench.protos.echo_grpc import EchoStub
from tests.bench.protos.echo_pb2 import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["connect", "serve"]


class BlockingCaller:
    """Each of its workloads runs in a thread, which makes all of the calls."""

    def __init__(self, channel: BlockingChannel) -> None:
        driver: Any = channel
        self._stub: Any = make_blocking(EchoStub(channel), lambda: driver)
        self._threads = anyio.CapacityLimiter(64)

    async def _in_thread(self, work: Callable[[bytes, int], None], *args: Any) -> None:
        await to_thread.run_sync(work, *args, limiter=self._threads)

    async def unary(self, payload: bytes, count: int) -> None:
        await self._in_thread(self._unary, payload, count)

    async def server_stream(self, payload: bytes, count: int) -> None:
        await self._in_thread(self._server_stream, payload, count)

    async def client_stream(self, payload: bytes, count: int) -> None:
        await self._in_thread(self._client_stream, payload, count)

    async def ping_pong(self, payload: bytes, count: int) -> None:
        await self._in_thread(self._ping_pong, payload, count)

    def _unary(self, payload: bytes, count: int) -> None:
        call = self._stub.Unary
        message = Message(data=payload)
        reply = None
        for _ in range(count):
            reply = call(message)
        assert reply == message

    def _server_stream(self, payload: bytes, count: int) -> None:
        message = Message(data=count.to_bytes(4, "big") + payload[4:])
        received = sum(1 for _ in self._stub.ServerStream(message))
        assert received == count

    def _client_stream(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        reply = self._stub.ClientStream(message for _ in range(count))
        assert int(reply.data) == count * len(payload)

    def _ping_pong(self, payload: bytes, count: int) -> None:
        message = Message(data=payload)
        with self._stub.Bidi.open() as call:
            for _ in range(count):
                call.send_message(message)
                reply = call.recv_message()
                assert reply is not None
            call.end()
            assert call.recv_message() is None


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[BlockingCaller]:
    def open_socket(_timeout: float | None) -> BlockingSocket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(address)
        sock.setblocking(False)
        return BlockingSocket(sock)

    channel = BlockingChannel(open_socket)
    async with anyio.create_task_group() as tasks:
        await tasks.start(channel.run)
        yield BlockingCaller(channel)
        channel.close()
