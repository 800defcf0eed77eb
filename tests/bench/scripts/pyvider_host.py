"""Starts a plugin of pyvider-rpcplugin 0.5.5."""

# mypy: ignore-errors
# It is written for that package, which is installed in an environment of its own.

from __future__ import annotations

import asyncio
import sys
import time

from pyvider.rpcplugin import plugin_client

from tests.bench.protos.echo_pb2 import Message
from tests.bench.protos.echo_pb2_grpc import EchoStub
from tests.bench.scripts.measured import memory_of_children, report


async def main() -> None:
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        client = plugin_client(command=sys.argv[1:])
        await client.start()
        reply = await EchoStub(client.grpc_channel).Unary(Message(data=b"x"))
        assert reply.data == b"x"
        seconds.append(time.perf_counter() - start)
        memory = memory_of_children()
        await client.shutdown_plugin()
        await client.close()
    report(seconds, memory)


asyncio.run(main())
