"""Starts a plugin of ours. The last word of the plugin's command is the loop, for both sides.

Whether they use TLS is in the environment.
"""

from __future__ import annotations

import sys
import time

import anyio

from pyvider_rpcplugin import plugin_client
from tests.bench.protos.echo_grpc import EchoStub
from tests.bench.protos.echo_pb2 import Message
from tests.bench.scripts.measured import memory_of_children, report


async def main() -> None:
    seconds: list[float] = []
    memory: dict[str, int] = {}
    for _ in range(2):
        start = time.perf_counter()
        async with plugin_client(sys.argv[1:]) as client:
            reply = await client.stub(EchoStub).Unary(Message(data=b"x"))
            assert reply.data == b"x"
            seconds.append(time.perf_counter() - start)
            memory = memory_of_children()
    report(seconds, memory)


anyio.run(main, backend=sys.argv[-1])
