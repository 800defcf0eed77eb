"""A plugin of ours on the loop that its argument names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pyvider_rpcplugin import plugin_server
from tests.bench.protos.echo_grpc import EchoBase

if TYPE_CHECKING:
    from grpclib.server import Stream

    from tests.bench.protos.echo_pb2 import Message


class Echo(EchoBase):
    async def Unary(self, stream: Stream[Message, Message]) -> None:
        message = await stream.recv_message()
        assert message is not None
        await stream.send_message(message)

    async def ServerStream(self, stream: Stream[Message, Message]) -> None:
        raise NotImplementedError

    async def ClientStream(self, stream: Stream[Message, Message]) -> None:
        raise NotImplementedError

    async def Bidi(self, stream: Stream[Message, Message]) -> None:
        while (message := await stream.recv_message()) is not None:
            await stream.send_message(message)


if __name__ == "__main__":
    plugin_server(handler=Echo()).run(backend="trio" if sys.argv[1] == "trio" else "asyncio")
