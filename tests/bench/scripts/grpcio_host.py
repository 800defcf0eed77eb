"""Starts the bare server on grpcio."""

# mypy: ignore-errors
# grpcio comes without annotations, and so does the code that it generates.

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import grpc.aio

from tests.bench.protos.echo_pb2 import Message
from tests.bench.protos.echo_pb2_grpc import EchoStub
from tests.bench.scripts.measured import memory_of_children, report


async def main() -> None:
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        # The simplest way: nothing else goes on in this loop.
        with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as plugin:  # noqa: ASYNC220
            address = plugin.stdout.readline().decode().split("|")[3]
            async with grpc.aio.insecure_channel(f"unix:{address}") as channel:
                reply = await EchoStub(channel).Unary(Message(data=b"x"))
                assert reply.data == b"x"
                seconds.append(time.perf_counter() - start)
                memory = memory_of_children()
            plugin.terminate()
    report(seconds, memory)


asyncio.run(main())
