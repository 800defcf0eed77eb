"""A plugin and a host in one program, under both names of the package, to be packed in several ways.

`plugin LOOP` serves the class, and `protobuf LOOP` the echo service. `host LOOP COMMAND...` starts a
plugin, prints what it answers, and stops it once the standard input ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
import sniffio
from pyvider.rpcplugin import context, plugin_client, plugin_server
from pyvider.rpcplugin.exception import RPCPluginError

import pyvider_rpcplugin.exception
from tests.plugins.echo_plugin import Echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

assert pyvider_rpcplugin.exception.RPCPluginError is RPCPluginError


class Store:
    """What the host offers to its plugin."""

    async def get(self, key: str) -> str:
        return key.upper()


class Facts(msgspec.Struct):
    loop: str
    pid: int
    parent: int
    unpacked: str
    library_path: str | None
    origin: str


class Counter:
    async def facts(self) -> Facts:
        return Facts(
            sniffio.current_async_library(),
            os.getpid(),
            os.getppid(),
            getattr(sys, "_MEIPASS", ""),
            os.environ.get("LD_LIBRARY_PATH"),
            pyvider_rpcplugin.__file__ or "",
        )

    async def asks(self, key: str) -> str:
        return await context().host(Store).get(key)

    async def count(self, start: int) -> AsyncIterator[int]:
        for n in range(start, 0, -1):
            yield n

    async def loads(self, module: str) -> str:
        """Import a module that no source may name."""
        return importlib.import_module(module).__name__

    async def hangs(self) -> None:
        """Keep the loop busy, whatever comes."""
        while True:
            time.sleep(1)  # noqa: ASYNC251 - on purpose


async def host(command: list[str]) -> None:
    async with plugin_client(command, services=[Store()]) as client:
        counter = client.proxy(Counter)
        answers = {
            "pid": client.pid,
            "facts": msgspec.to_builtins(await counter.facts()),
            "asks": await counter.asks("ada"),
            "count": [n async for n in counter.count(3)],
        }
        print(json.dumps(answers), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    kind, loop, *command = sys.argv[1:]
    if kind == "host":
        anyio.run(host, command, backend=loop)
    else:
        handler = Counter() if kind == "plugin" else Echo()
        plugin_server(handler=handler).run(backend="trio" if loop == "trio" else "asyncio")
