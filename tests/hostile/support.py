"""A server with an honest caller, and attackers that are none of our code."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import h2.events
import pytest
from anyio.abc import ByteStream

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.transport import transport_for
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import LINKS, Echo, ScriptedPeer

CALM = 11  # ENHANCE_YOUR_CALM


class Field:
    """Where it happens: a server, an honest caller, and where an attacker finds the server."""

    def __init__(self, server: Server, link: str, address: str, channel: Channel) -> None:
        self.server = server
        self.link = link
        self.address = address
        self.channel = channel
        (self._connection,) = channel._connections

    @asynccontextmanager
    async def attacker(self) -> AsyncIterator[ByteStream]:
        """A connection of somebody else's."""
        stream: ByteStream
        if self.link == "unix":
            stream = await anyio.connect_unix(self.address)
        else:
            host, _, port = self.address.rpartition(":")
            stream = await anyio.connect_tcp(host, int(port))
        async with stream:
            yield stream

    @asynccontextmanager
    async def speaker(self, **settings: int) -> AsyncIterator[ScriptedPeer]:
        """The same, after the exchange of prefaces, with `h2` to say and to hear things."""
        async with self.attacker() as stream:
            peer = ScriptedPeer(stream, client_side=True)
            await peer.start(**settings)
            await peer.until(h2.events.RemoteSettingsChanged)
            yield peer

    async def check_undisturbed(self, calls: int = 10) -> None:
        """The honest caller is answered, and over the same connection as before."""
        stub = EchoStub(self.channel)
        with anyio.fail_after(5):
            for number in range(calls):
                reply = await stub.Unary(EchoRequest(text=str(number), data=bytes(1000)))
                assert (reply.text, len(reply.data)) == (str(number), 1000)
        assert self.channel._connections == {self._connection}
        assert self._connection.lost is None


@asynccontextmanager
async def field(
    service: Any = None, *, link: str = "unix", options: RPCOptions | None = None
) -> AsyncIterator[Field]:
    """A server on a socket, with an honest caller that is connected to it."""
    server = Server([service or Echo()], options=options)
    with anyio.fail_after(20), unwrapped():
        async with LINKS[link]().listen() as listener, anyio.create_task_group() as tasks:
            await tasks.start(server.serve, listener)
            transport = transport_for(link, listener.address)
            async with open_channel(Channel(transport.connect)) as channel:
                here = Field(server, link, listener.address, channel)
                await here.check_undisturbed(1)
                yield here
                await here.check_undisturbed()
            await server.stop(0)
            tasks.cancel_scope.cancel()


async def until_calmed(peer: ScriptedPeer) -> str:
    """Wait for the GOAWAY that says so, and for the end; return what it says more."""
    event = await peer.until(h2.events.ConnectionTerminated)
    assert event.error_code == CALM
    return (event.additional_data or b"").decode()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("pyvider_rpcplugin")
    ]
