"""A plugin that calls its host back, and serves more than one service.

It speaks the echo service. The text of a unary request is a command, `count` the number that goes
with it; the answer's `index` is a number, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio

from pyvider_rpcplugin import RPCPluginError, context, plugin_server
from tests.plugins import run_on
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest


class Inner(EchoBase):
    """What the plugin serves by its broker."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = anyio.Event()

    async def Unary(self, stream):
        request = await stream.recv_message()
        text = f"{self.name}: {request.text}"
        if request.text == "context":
            text = f"{context().deadline} {type(context().broker).__name__}"
        await stream.send_message(EchoReply(text=text))
        self.asked.set()

    async def ServerStream(self, stream):
        request = await stream.recv_message()
        for index in range(request.count):
            await stream.send_message(EchoReply(text=self.name, index=index))

    async def ClientStream(self, stream):
        raise NotImplementedError

    async def Bidi(self, stream):
        async for request in stream:
            await stream.send_message(EchoReply(text=request.text))


class Outer(Inner):
    async def Unary(self, stream):
        request = await stream.recv_message()
        broker = context().broker
        index = 0
        match request.text:
            case "call-back":
                async with broker.dial(request.count) as channel:
                    reply = await EchoStub(channel).Unary(EchoRequest(text="from the plugin"))
                text = reply.text
            case "dial":
                try:
                    async with broker.dial(request.count, timeout=0.2):
                        text = "dialled"
                except RPCPluginError as exc:
                    text = f"{type(exc).__name__}: {exc}"
            case "deadline":
                text = str(context().deadline is not None)
            case "metadata":
                metadata = context().metadata
                text = str(metadata and metadata.get("word"))
            case _:
                text = request.text
        await stream.send_message(EchoReply(text=text, index=index))

    async def ServerStream(self, stream):
        """Serve an inner service while the stream lasts: until it was called, or for ever."""
        request = await stream.recv_message()
        inner = Inner(request.text)
        async with context().broker.serve(inner) as number:
            await stream.send_message(EchoReply(index=number))
            if request.text == "for ever":
                await anyio.Event().wait()
            await inner.asked.wait()
        await stream.send_message(EchoReply(text="served"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--transport", default=None)
    parser.add_argument("--debug", action="store_true", default=None)
    options = parser.parse_args()
    server = plugin_server(handler=Outer("outer"), transport=options.transport)
    run_on(options.loop, server, debug=options.debug)


if __name__ == "__main__":
    main()
