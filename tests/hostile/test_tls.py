"""TLS handshakes that never finish, and those that are something else."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio import lowlevel
from anyio.abc import ByteStream

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.crypto._template import make_certificate
from pyvider_rpcplugin.crypto.contexts import auto_client_context, auto_server_context
from pyvider_rpcplugin.rpc import Channel, Server, open_channel
from pyvider_rpcplugin.transport import TLSListener, UnixSocketTransport, wrap_client
from pyvider_rpcplugin.transport._tls import _MOST_HANDSHAKES
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo

pytestmark = pytest.mark.net

HOST, PLUGIN = make_certificate(), make_certificate()


async def test_handshakes_that_never_finish_keep_nobody_out_and_disturb_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server([Echo()])
    with anyio.fail_after(20), unwrapped():
        async with UnixSocketTransport().listen() as raw, anyio.create_task_group() as tasks:
            listener = TLSListener(raw, auto_server_context(PLUGIN, HOST.der))
            await tasks.start(server.serve, listener)

            async def connect() -> ByteStream:
                stream = await UnixSocketTransport(raw.address).connect()
                return await wrap_client(stream, auto_client_context(HOST, PLUGIN.der))

            async with open_channel(Channel(connect)) as channel, AsyncExitStack() as stack:
                stub = EchoStub(channel)
                await stub.Unary(EchoRequest())
                (connection,) = channel._connections
                silent = []
                for number in range(2 * _MOST_HANDSHAKES):
                    stream = await stack.enter_async_context(await anyio.connect_unix(raw.address))
                    silent.append(stream)
                    if number % 2:
                        await stream.send(b"\x16\x03\x01\x02\x00\x01")  # and the rest never comes
                    await anyio.wait_all_tasks_blocked()
                    assert len(listener._handshakes) <= _MOST_HANDSHAKES
                for stream in silent[:_MOST_HANDSHAKES]:
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        await stream.receive()
                # A newcomer gets in, and who was there notices nothing.
                async with open_channel(Channel(connect)) as another:
                    await EchoStub(another).Unary(EchoRequest())
                for _ in range(10):
                    await stub.Unary(EchoRequest())
                assert channel._connections == {connection}
            await server.stop(0)
            tasks.cancel_scope.cancel()
    assert caplog.text.count("too many TLS handshakes at a time") >= _MOST_HANDSHAKES


@pytest.mark.parametrize(
    "words",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100_000),
        os.urandom(5000),
    ],
    ids=["http2", "http", "zeros", "noise"],
)
async def test_what_is_no_handshake_is_dropped_at_once(words: bytes) -> None:
    with anyio.fail_after(10):
        async with UnixSocketTransport().listen() as raw, anyio.create_task_group() as tasks:
            listener = TLSListener(raw, auto_server_context(PLUGIN, HOST.der))

            async def never(stream: ByteStream) -> None:
                raise AssertionError

            tasks.start_soon(listener.serve, never)
            async with await anyio.connect_unix(raw.address) as stream:
                try:
                    await stream.send(words)
                    while True:
                        await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
            while listener._handshakes:
                await lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
