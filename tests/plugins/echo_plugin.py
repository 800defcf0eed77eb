"""Serves the echo service. The text of a unary request may ask it to do something first."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio

from pyvider_rpcplugin import plugin_client, plugin_server
from tests.plugins import run_on
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest


class Echo(EchoBase):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def Unary(self, stream):
        request = await stream.recv_message()
        self.seen.append(request.text)
        word, _, argument = request.text.partition(":")
        text = request.text
        match word:
            case "kill":
                os.write(2, b"last words\n")
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill-once":
                # The first of all plugins that share a temporary folder.
                mark = os.path.join(tempfile.gettempdir(), "killed")
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)
                os.unlink(mark)
            case "exit":
                os.write(2, b"going\n")
                os._exit(int(argument))
            case "fork":
                # A child that is no longer in the plugin's group, and holds all that it had open.
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(1)  # noqa: ASYNC251 - it only has to be there
                os._exit(int(argument))
            case "leave":
                sys.exit(int(argument))
            case "hang-once":
                # The first that is asked with the name of this file.
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(argument, os.O_CREAT | os.O_EXCL))
                    await anyio.sleep_forever()
            case "hang":
                await anyio.sleep_forever()
            case "pid":
                text = str(os.getpid())
            case "loop":
                loops = (name for name in ("trio", "uvloop") if name in sys.modules)
                text = next(loops, "asyncio")
            case "key":
                # Its own, whoever has made it.
                made = [x for x in gc.get_objects() if type(x).__name__ == "GeneratedCertificate"]
                text = " ".join(x.key_der.hex() for x in made)
            case "seen":
                text = " ".join(self.seen)
            case "peer":
                text = stream.peer.cert()["serialNumber"]
            case "nest":
                text = await call_a_plugin_of_my_own()
            case "env":
                text = os.environ.get(argument, "")
            case "shout":
                # A lot of output: through Python, straight to both descriptors.
                line = b"x" * 1023 + b"\n"
                for _ in range(int(argument) // 2048):
                    os.write(1, line)
                    os.write(2, line)
                print("shouted")
        await stream.send_message(EchoReply(data=request.data, text=text))

    async def ServerStream(self, stream):
        request = await stream.recv_message()
        for index in range(request.count):
            await stream.send_message(EchoReply(text=request.text, index=index))
        if request.text == "hang":
            await anyio.sleep_forever()

    async def ClientStream(self, stream):
        count = 0
        async for _ in stream:
            count += 1
        await stream.send_message(EchoReply(index=count))

    async def Bidi(self, stream):
        async for request in stream:
            await stream.send_message(EchoReply(data=request.data, text=request.text))


async def call_a_plugin_of_my_own() -> str:
    """What both plugins were told by their hosts, and whether the inner one answers."""
    command = [sys.executable, __file__, "--loop", "trio" if "trio" in sys.modules else "asyncio"]
    async with plugin_client(command) as client:
        stub = client.stub(EchoStub)
        answer = await stub.Unary(EchoRequest(text="inner"))
        certificate = await stub.Unary(EchoRequest(text="env:PLUGIN_CLIENT_CERT"))
        folder = await stub.Unary(EchoRequest(text="env:PLUGIN_UNIX_SOCKET_DIR"))
    mine = os.environ.get("PLUGIN_CLIENT_CERT"), os.environ.get("PLUGIN_UNIX_SOCKET_DIR")
    return json.dumps([answer.text, *mine, certificate.text, folder.text])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--transport", default=None)
    parser.add_argument("--path", default=None)
    parser.add_argument("--standalone", action="store_true")
    parser.add_argument("--print-first", default="")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--log", action="store_true")
    options = parser.parse_args()
    if options.log:
        logging.basicConfig(level=logging.DEBUG)
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(options.print_first, end="")
    server = plugin_server(
        handler=Echo(),
        transport=options.transport,
        transport_path=options.path,
        standalone=options.standalone,
    )
    run_on(options.loop, server)


if __name__ == "__main__":
    main()
