"""grpcio, and our server, in a process of its own.

peer grpcio ADDRESS      serves the servicers with grpcio, on ADDRESS-SERVICER
peer asyncio ADDRESS     serves them with our server, on that loop
peer trio ADDRESS        likewise
peer run ADDRESS GROUP   runs the script with grpcio's channel, and prints what it said
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import grpc  # type: ignore[import-untyped]

from pyvider_rpcplugin.rpc import Server
from pyvider_rpcplugin.transport import UnixSocketTransport
from tests.interop.peers.commands import say

from .generated import EchoStub, add_EchoServicer_to_server
from .said import run_all
from .servicers import INTERCEPTORS, SERVICERS


async def until_stdin_ends() -> None:
    say(ready=True)
    await anyio.to_thread.run_sync(sys.stdin.read)


async def serve_theirs(address: str) -> None:
    servers = []
    for name, kind in SERVICERS.items():
        interceptors = INTERCEPTORS.get(name, list)()
        server = grpc.aio.server(ThreadPoolExecutor(8), interceptors=interceptors)
        add_EchoServicer_to_server(kind(), server)
        server.add_insecure_port(f"unix:{address}-{name}")
        await server.start()
        servers.append(server)
    await until_stdin_ends()
    for server in servers:
        await server.stop(None)


async def serve_ours(address: str) -> None:
    async with anyio.create_task_group() as tasks:
        for name, kind in SERVICERS.items():
            interceptors = INTERCEPTORS.get(name, list)()
            await tasks.start(serve_one, f"{address}-{name}", kind(), interceptors)
        await until_stdin_ends()
        tasks.cancel_scope.cancel()


async def serve_one(path: str, servicer: Any, interceptors: list[Any], *, task_status: Any) -> None:
    server = Server()
    add_EchoServicer_to_server(servicer, server)
    server.intercept(interceptors)
    async with UnixSocketTransport(path).listen() as listener:
        await server.serve(listener, task_status=task_status)


async def run(address: str, group: str) -> None:
    async with grpc.aio.insecure_channel(f"unix:{address}") as channel:
        stub: Any = EchoStub(channel)
        stub.channel = channel
        say(**await run_all(stub, group))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["grpcio", address]:
            asyncio.run(serve_theirs(address))
        case [("asyncio" | "trio") as loop, address]:
            anyio.run(serve_ours, address, backend=loop)
        case ["run", address, group]:
            asyncio.run(run(address, group))
        case _:
            sys.exit(__doc__)
