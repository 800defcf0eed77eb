"""A plugin of pyvider-rpcplugin 0.5.5, the public package with the documented API."""

# mypy: ignore-errors
# It is written for that package, which is installed in an environment of its own.

from __future__ import annotations

import asyncio

from pyvider.rpcplugin import plugin_server
from pyvider.rpcplugin.protocol.base import RPCPluginProtocol

from tests.bench.protos import echo_pb2_grpc


class Protocol(RPCPluginProtocol):
    supported_protocol_versions = (1,)

    async def get_grpc_descriptors(self):
        return echo_pb2_grpc, "bench.Echo"

    async def add_to_server(self, server, handler):
        echo_pb2_grpc.add_EchoServicer_to_server(handler, server)


class Echo(echo_pb2_grpc.EchoServicer):
    async def Unary(self, request, context):
        return request


async def main() -> None:
    # The constructor makes a future, so it has to be called in the loop.
    await plugin_server(protocol=Protocol(), handler=Echo()).serve()


asyncio.run(main())
