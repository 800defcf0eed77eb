"""Our side of the interop tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.transport import TCPSocketTransport, UnixSocketTransport, transport_for

from .service import Interop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

    from .conftest import PeerProcess


async def serve_for(peer: PeerProcess, scenario: str, link: str) -> None:
    """Let a foreign client run a scenario against our server."""
    transport = UnixSocketTransport() if link == "unix" else TCPSocketTransport()
    server = Server([Interop()])
    with unwrapped():
        async with transport.listen() as listener, anyio.create_task_group() as tasks:
            await tasks.start(server.serve, listener)
            failure = await to_thread.run_sync(peer.run, scenario, listener.address)
            await server.stop(0)
    assert failure is None, failure


@asynccontextmanager
async def channel_to(
    addresses: dict[str, str], link: str, **options: Any
) -> AsyncIterator[Channel]:
    """Our channel to a foreign server."""
    transport = transport_for(link, addresses[link])

    async def connect() -> ByteStream:
        stream: ByteStream = await transport.connect()
        return stream

    with anyio.fail_after(20):
        async with open_channel(Channel(connect, options=RPCOptions(**options))) as channel:
            yield channel
