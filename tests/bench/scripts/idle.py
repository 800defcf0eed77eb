"""What idle streams or idle connections take: ``PEER stream|connection ADDRESS``.

The peer is one of those that run grpclib's code. Both sides are processes of their own. Prints one
JSON object: the KiB that each stream, or each connection over which a call was made, takes in the
process that serves (``server``) and in the one that calls (``client``).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from tests.bench.peers import PEERS
from tests.bench.protos.echo_pb2 import Message

# They stay open, so that what is counted finds no memory that was freed.
BEFORE = 50
# On one connection there may be a thousand streams.
NUMBER = {"stream": 900, "connection": 200}


def memory_of(pid: int) -> int:
    """The KiB that a process has of its own: not from files."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Anonymous":
            return int(value.split()[0])
    raise LookupError(pid)


async def measure(module: Any, kind: str, address: str, server: int) -> dict[str, float]:
    async with AsyncExitStack() as opened:
        if kind == "stream":
            caller = await opened.enter_async_context(module.connect(address))

        async def one_more() -> None:
            if kind == "stream":
                stream = await opened.enter_async_context(caller.stub.Bidi.open())
                await stream.send_message(Message(data=b"x"))
                await stream.recv_message()
            else:
                one = await opened.enter_async_context(module.connect(address))
                await one.unary(b"x", 1)

        pids = {"server": server, "client": os.getpid()}
        for _ in range(BEFORE):
            await one_more()
        gc.collect()
        before = {side: memory_of(pid) for side, pid in pids.items()}
        for _ in range(NUMBER[kind]):
            await one_more()
        gc.collect()
        return {side: (memory_of(pid) - before[side]) / NUMBER[kind] for side, pid in pids.items()}


def main() -> None:
    name, kind, address = sys.argv[1:]
    peer = PEERS[name]
    module = importlib.import_module(f"tests.bench.peers.{peer.module}")
    command = [sys.executable, "-m", "tests.bench.child", name, "server", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        # It says that it is there, and ends when its stdin does.
        server.stdout.readline()
        found = anyio.run(measure, module, kind, address, server.pid, backend=peer.backend)
        server.stdin.close()
    print(json.dumps(found), flush=True)


main()
