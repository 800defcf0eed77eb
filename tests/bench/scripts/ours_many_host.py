"""Starts many plugins of one host: ``NUMBER PYTHON PLUGIN LOOP``.

Prints one JSON object: ``seconds`` from the first start to the last reply.
"""

from __future__ import annotations

import json
import sys
import time

import anyio

from pyvider_rpcplugin import PluginHost
from tests.bench.protos.echo_grpc import EchoStub
from tests.bench.protos.echo_pb2 import Message


async def main() -> None:
    async with PluginHost() as host:

        async def one() -> None:
            client = await host.start(sys.argv[2:])
            reply = await client.stub(EchoStub).Unary(Message(data=b"x"))
            assert reply.data == b"x"

        start = time.perf_counter()
        async with anyio.create_task_group() as plugins:
            for _ in range(int(sys.argv[1])):
                plugins.start_soon(one)
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


anyio.run(main, backend=sys.argv[-1])
