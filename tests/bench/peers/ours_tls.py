"""The same engine over mutual TLS, as plugins have it by default.

Each side needs the other one's certificate: what the environment and the handshake line carry for
plugins, two files beside the socket carry here.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin.crypto import auto_certificate, auto_client_context, auto_server_context
from pyvider_rpcplugin.rpc import Channel, Server
from pyvider_rpcplugin.transport import UnixSocketTransport, wrap_client, wrap_server
from tests.bench.peers._grpclib_code import Echo, GrpclibCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    own = auto_certificate()

    async def main() -> None:
        await anyio.Path(f"{address}.server").write_bytes(own.der)
        server = Server([Echo()])

        async def handle(stream: Any) -> None:
            client = await anyio.Path(f"{address}.client").read_bytes()
            context = auto_server_context(own, client)
            await server.serve_stream(await wrap_server(stream, context))

        async with UnixSocketTransport(address).listen() as listener:
            ready()
            await listener.serve(handle)

    anyio.run(main, backend=backend)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[GrpclibCaller]:
    own = auto_certificate()
    await anyio.Path(f"{address}.client").write_bytes(own.der)
    context = auto_client_context(own, await anyio.Path(f"{address}.server").read_bytes())

    async def open_stream() -> Any:
        return await wrap_client(await UnixSocketTransport(address).connect(), context)

    channel = Channel(open_stream, scheme="https")
    async with anyio.create_task_group() as tasks:
        await tasks.start(channel.run)
        yield GrpclibCaller(channel)
        channel.close()
