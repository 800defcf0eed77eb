"""The gRPC engine over encrypted connections."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.crypto import (
    Credentials,
    auto_client_context,
    auto_server_context,
    make_certificate,
)
from pyvider_rpcplugin.exception import SecurityError
from pyvider_rpcplugin.rpc import Channel, Server, open_channel
from pyvider_rpcplugin.transport import (
    MemoryTransport,
    TCPSocketTransport,
    TLSListener,
    UnixSocketTransport,
    transport_for,
    wrap_client,
)

from ..protos.echo_grpc import EchoStub
from ..protos.echo_pb2 import EchoRequest
from ..rpc.support import Echo

HOST, PLUGIN, STRANGER = (make_certificate() for _ in range(3))


@asynccontextmanager
async def serving(transport):
    """An echo server that talks to HOST alone; gives what connects to it with a certificate."""
    credentials = Credentials(lambda: auto_server_context(PLUGIN, HOST.der), pinned=HOST.der)
    async with transport.listen() as listener, anyio.create_task_group() as tasks:
        server = Server([Echo()])
        await tasks.start(server.serve, TLSListener(listener, credentials))

        def channel(own) -> Channel:
            client = Credentials(lambda: auto_client_context(own, PLUGIN.der), pinned=PLUGIN.der)

            async def connect():
                network, address = transport.network, transport.address
                there = transport if network == "memory" else transport_for(network, address)
                return await wrap_client(await there.connect(), client)

            return Channel(connect)

        yield channel
        await server.stop(1)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "transport", [UnixSocketTransport, TCPSocketTransport, MemoryTransport], ids=lambda t: t.network
)
async def test_calls_of_all_sizes_and_kinds_work(transport):
    async with serving(transport()) as channel, open_channel(channel(HOST)) as connection:
        stub = EchoStub(connection)
        with anyio.fail_after(20):
            for size in (0, 1, 16_384, 3_000_000):
                data = os.urandom(size)
                assert (await stub.Unary(EchoRequest(data=data))).data == data
            async with stub.Bidi.open() as stream:
                for number in range(300):
                    await stream.send_message(EchoRequest(text=str(number)))
                    reply = await stream.recv_message()
                    assert reply is not None
                    assert reply.text == str(number)
                await stream.end()


async def test_many_callers_share_one_connection():
    async with serving(UnixSocketTransport()) as channel, open_channel(channel(HOST)) as connection:
        stub = EchoStub(connection)
        answered = []

        async def call(number):
            data = os.urandom(1 + number * 1000)
            for _ in range(10):
                assert (await stub.Unary(EchoRequest(data=data))).data == data
            answered.append(number)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(call, number)
        assert len(answered) == 64


async def test_a_call_that_is_cancelled_in_the_middle_harms_no_other():
    async with serving(UnixSocketTransport()) as channel, open_channel(channel(HOST)) as connection:
        stub = EchoStub(connection)
        with anyio.fail_after(20):
            for delay in (0, 0.0005, 0.001, 0.002, 0.005):
                with anyio.move_on_after(delay):
                    await stub.Unary(EchoRequest(data=os.urandom(2_000_000)))
                assert (await stub.Unary(EchoRequest(data=b"x"))).data == b"x"


async def test_a_host_that_is_refused_is_told_so_at_the_start():
    async with serving(UnixSocketTransport()) as channel:
        with anyio.fail_after(5), pytest.raises(SecurityError) as caught:
            async with open_channel(channel(STRANGER)):
                pytest.fail("it was let in")
        assert caught.value.phase == "tls"
        assert caught.value.hint


async def test_a_connection_that_breaks_ends_calls_as_on_a_plain_connection():
    async with serving(UnixSocketTransport()) as channel, open_channel(channel(HOST)) as connection:
        stub = EchoStub(connection)
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            async with stub.Bidi.open() as stream:
                await stream.send_message(EchoRequest(text="x"))
                await stream.recv_message()
                (client_side,) = connection._connections
                await client_side.stream._stream.aclose()  # type: ignore[attr-defined]
                await stream.recv_message()
        assert caught.value.status is Status.UNAVAILABLE
