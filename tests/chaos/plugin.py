"""Serves the echo service, notes what it has executed, and does harm to itself when asked."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import anyio

from pyvider_rpcplugin import plugin_server
from tests.protos.echo_grpc import EchoBase
from tests.protos.echo_pb2 import EchoReply


class Echo(EchoBase):
    def __init__(self, journal: str) -> None:
        self.journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, number: str) -> None:
        os.write(self.journal, f"{number}\n".encode())

    async def Unary(self, stream):
        request = await stream.recv_message()
        if request.text.startswith("fault "):
            await harm(*request.text.split()[1:])
        else:
            self.note(request.text)
            await anyio.sleep(request.count / 1000)
        await stream.send_message(EchoReply(data=request.data, text=request.text))

    async def ServerStream(self, stream):
        request = await stream.recv_message()
        self.note(request.text)
        for index in range(request.count):
            await stream.send_message(EchoReply(data=request.data, index=index))
            await anyio.sleep(0.002)

    async def ClientStream(self, stream):
        index = 0
        async for request in stream:
            if not index:
                self.note(request.text)
            index += 1
        await stream.send_message(EchoReply(index=index))

    async def Bidi(self, stream):
        index = 0
        async for request in stream:
            if not index:
                self.note(request.text)
            index += 1
            await stream.send_message(EchoReply(data=request.data, index=index))


async def harm(kind: str, amount: str) -> None:
    match kind:
        case "clock":
            jump(float(amount))
        case "descriptors":
            # None are left for a while.
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            await anyio.sleep(float(amount))
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))
        case "full":
            # Its log is on a device that is full.
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, 2)
            os.close(full)
            with contextlib.suppress(OSError):
                os.write(2, b"lost\n")
            with contextlib.suppress(OSError):
                sys.stderr.write("lost\n")
                sys.stderr.flush()
        case "pipe":
            # More than a pipe holds, and it blocks for as long as nobody reads.
            line = b"x" * 1023 + b"\n"
            for _ in range(int(amount)):
                os.write(1, line)
                os.write(2, line)


def jump(seconds: float) -> None:
    """Let the wall's clock jump, and the steady one by as much as it can: forwards."""
    wall, steady = time.time, time.monotonic
    time.time = lambda: wall() + seconds
    time.monotonic = lambda: steady() + max(0.0, min(seconds, 5.0))


if __name__ == "__main__":
    plugin_server(handler=Echo(sys.argv[2])).run(
        backend="trio" if sys.argv[1] == "trio" else "asyncio"
    )
