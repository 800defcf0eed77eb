from __future__ import annotations

from typing import TYPE_CHECKING

from greeter_grpc import GreeterBase
from greeter_pb2 import CountdownReply, CountdownRequest, HelloReply, HelloRequest

from pyvider_rpcplugin import plugin_server

if TYPE_CHECKING:
    from grpclib.server import Stream


class Greeter(GreeterBase):
    async def Hello(self, stream: Stream[HelloRequest, HelloReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(HelloReply(text=f"Hello, {request.name}!"))

    async def Countdown(self, stream: Stream[CountdownRequest, CountdownReply]) -> None:
        request = await stream.recv_message()
        assert request is not None
        for n in range(request.start, 0, -1):
            await stream.send_message(CountdownReply(n=n))


if __name__ == "__main__":
    plugin_server(handler=Greeter()).run()
