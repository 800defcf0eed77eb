"""Starts many plugins of one host: ``NUMBER PYTHON PLUGIN LOOP``.

Prints one JSON object: ``seconds`` from the first start to the last reply, and to some before it.
"""

from __future__ import annotations

import sys
import time

import anyio

from pyvider_rpcplugin import PluginHost
from tests.bench.protos.echo_grpc import EchoStub
from tests.bench.protos.echo_pb2 import Message
from tests.bench.scripts.measured import report_many


async def main() -> None:
    replies: list[float] = []
    async with PluginHost() as host:

        async def one() -> None:
            client = await host.start(sys.argv[2:])
            reply = await client.stub(EchoStub).Unary(Message(data=b"x"))
            assert reply.data == b"x"
            replies.append(time.perf_counter())

        start = time.perf_counter()
        async with anyio.create_task_group() as plugins:
            for _ in range(int(sys.argv[1])):
                plugins.start_soon(one)
        report_many(start, replies)


anyio.run(main, backend=sys.argv[-1])
