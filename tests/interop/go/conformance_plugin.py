"""A plugin that serves what go-plugin's own tests call."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from google.protobuf.empty_pb2 import Empty

from pyvider_rpcplugin import context, plugin_server
from tests.interop.go.proto.conformance_grpc import PingPongBase, PingPongStub, TestBase
from tests.interop.go.proto.conformance_pb2 import Brokered, Doubled, Pong


class Conformance(TestBase):
    async def Double(self, stream):
        number = await stream.recv_message()
        await stream.send_message(Doubled(output=number.input * 2))

    async def PrintKV(self, stream):
        pair = await stream.recv_message()
        print(pair.key, getattr(pair, pair.WhichOneof("value")))  # noqa: T201 - its task
        await stream.send_message(Empty())

    async def Bidirectional(self, stream):
        caller = await stream.recv_message()
        broker = context().broker
        async with broker.dial(caller.id) as channel:
            assert (await PingPongStub(channel).Ping(Empty())).message == "pong"
        number = await broker.start_serving(PingPong())
        await stream.send_message(Brokered(id=number))

    async def Stream(self, stream):
        async for number in stream:
            await stream.send_message(Doubled(output=number.input * 2))

    async def PrintStdio(self, stream):
        output = await stream.recv_message()
        sys.stdout.write(output.stdout.decode())
        sys.stderr.write(output.stderr.decode())
        await stream.send_message(Empty())

    async def Panic(self, stream):
        words = await stream.recv_message()
        os.write(2, f"panic: {words.message}\n".encode())
        os._exit(2)


class PingPong(PingPongBase):
    async def Ping(self, stream):
        await stream.recv_message()
        await stream.send_message(Pong(message="pong"))


if __name__ == "__main__":
    plugin_server(
        handler=Conformance(),
        magic_cookie_key="INTEROP_COOKIE",
        magic_cookie_value="interop",
    ).run(backend="trio" if sys.argv[1:] == ["trio"] else "asyncio")
