"""grpclib's server with the interop service, on a Unix and a TCP socket."""

from __future__ import annotations

import asyncio
import sys

from grpclib.server import Server

from tests.interop.peers.commands import line, say
from tests.interop.service import Interop


async def main(path: str) -> None:
    """Serve until stdin ends."""
    service = Interop()
    unix, tcp = Server([service]), Server([service])
    await unix.start(path=path)
    await tcp.start("127.0.0.1", 0)
    assert isinstance(tcp._server, asyncio.Server)
    port = tcp._server.sockets[0].getsockname()[1]
    say(unix=path, tcp=f"127.0.0.1:{port}")
    await line()
    for server in (unix, tcp):
        server.close()
        await server.wait_closed()


asyncio.run(main(sys.argv[1]))
