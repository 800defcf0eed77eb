"""Many plugins under one host."""

from __future__ import annotations

import logging
import os
from itertools import pairwise

import anyio
import psutil

from pyvider_rpcplugin import PluginHost, RPCPluginClient
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest


class _Forced(logging.Handler):
    """Notes what had to be ended by force."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("process.shutdown.slow"):
            self.lines.append(record.getMessage())


async def run(loop: str, plugins: int) -> list[str]:
    """Start so many at once, call each, and stop them; print how long that takes."""
    times = [anyio.current_time()]
    empty = psutil.Process().memory_info().rss
    wrong: list[str] = []
    clients: list[RPCPluginClient] = []
    async with PluginHost() as host:

        async def start() -> None:
            try:
                clients.append(await host.start(echo("--loop", loop)))
            except Exception as error:
                wrong.append(f"could not be started: {error!r}")

        async def call(client: RPCPluginClient) -> None:
            reply = await client.stub(EchoStub).Unary(EchoRequest(text="pid"), timeout=30)
            assert int(reply.text) == client.pid

        async with anyio.create_task_group() as tasks:
            for _ in range(plugins):
                tasks.start_soon(start)
        times.append(anyio.current_time())
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(call, client)
        times.append(anyio.current_time())
        memory = [psutil.Process(client.pid).memory_full_info() for client in clients]
        mine = psutil.Process().memory_info().rss - empty
        forced = _Forced()
        log = logging.getLogger("pyvider_rpcplugin.process._process")
        log.addHandler(forced)
        await host.stop()
        log.removeHandler(forced)
        wrong += forced.lines
        times.append(anyio.current_time())
    started, called, stopped = (after - before for before, after in pairwise(times))
    count = max(1, len(memory))
    print(
        f"{loop}: {len(clients)} plugins on {os.cpu_count()} cores: started in {started:.1f} s, "
        f"called in {called:.2f} s, stopped in {stopped:.1f} s; memory of each "
        f"{sum(one.rss for one in memory) // count >> 10} KiB (of its own: "
        f"{sum(one.uss for one in memory) // count >> 10} KiB), in the host "
        f"{mine // count >> 10} KiB",
        flush=True,
    )
    return wrong
