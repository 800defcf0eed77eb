"""Starts a plugin of ours that is a plain class, as `ours_host` does with generated code."""

from __future__ import annotations

import sys
import time

import anyio

from pyvider_rpcplugin import plugin_client
from tests.bench.scripts.measured import memory_of_children, report
from tests.bench.scripts.typed_plugin import Echo


async def main() -> None:
    seconds: list[float] = []
    memory: dict[str, int] = {}
    for _ in range(2):
        start = time.perf_counter()
        async with plugin_client(sys.argv[1:]) as client:
            assert await client.proxy(Echo).unary(b"x") == b"x"
            seconds.append(time.perf_counter() - start)
            memory = memory_of_children()
    report(seconds, memory)


anyio.run(main, backend=sys.argv[-1])
