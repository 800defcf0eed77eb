"""Starts a plugin of python-plugin 0.1.0."""

# mypy: ignore-errors
# It is written for that package, which is installed in an environment of its own.

from __future__ import annotations

import asyncio
import os
import sys
import time

from pyplugin import Client, ClientConfig

from tests.bench.protos.echo_pb2 import Message
from tests.bench.scripts.measured import memory_of_children, report
from tests.bench.scripts.pyplugin_plugin import HANDSHAKE, EchoPlugin


async def main() -> None:
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        config = ClientConfig(
            handshake_config=HANDSHAKE,
            plugins={"echo": EchoPlugin()},
            cmd=sys.argv[1:],
            auto_mtls=os.environ["PLUGIN_AUTO_MTLS"] == "true",
        )
        async with Client(config) as client:
            reply = await client.dispense("echo").Unary(Message(data=b"x"))
            assert reply.data == b"x"
            seconds.append(time.perf_counter() - start)
            memory = memory_of_children()
    report(seconds, memory)


asyncio.run(main())
