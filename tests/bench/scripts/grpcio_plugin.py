"""A bare server on grpcio that prints the same line as a plugin."""

# mypy: ignore-errors
# grpcio comes without annotations, and so does the code that it generates.

from __future__ import annotations

import asyncio
import os
import tempfile

import grpc.aio

from tests.bench.protos.echo_pb2_grpc import EchoServicer, add_EchoServicer_to_server


class Echo(EchoServicer):
    async def Unary(self, request, context):
        return request


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bare-") as folder:
        address = os.path.join(folder, "socket")
        server = grpc.aio.server()
        add_EchoServicer_to_server(Echo(), server)
        server.add_insecure_port(f"unix:{address}")
        await server.start()
        print(f"1|1|unix|{address}|grpc", flush=True)
        await server.wait_for_termination()


asyncio.run(main())
