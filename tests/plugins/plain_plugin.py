"""A plugin without any of our code: grpclib's server, a line printed by hand, no service of ours.

It goes on printing to its standard output, which is all that it knows.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from grpclib.server import Server

from tests.protos.echo_grpc import EchoBase
from tests.protos.echo_pb2 import EchoReply


class Echo(EchoBase):
    async def Unary(self, stream):
        request = await stream.recv_message()
        print(request.text, flush=True)
        await stream.send_message(EchoReply(text=request.text))

    async def ServerStream(self, stream): ...
    async def ClientStream(self, stream): ...
    async def Bidi(self, stream): ...


async def main() -> None:
    server = Server([Echo()])
    path = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "plain")
    await server.start(path=path)
    print(f"1|1|unix|{path}|grpc\nin the same piece", flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
