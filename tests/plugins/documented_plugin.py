"""The plugin of the API reference, as it is written there, on the loop of the first argument."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import trio
from pyvider.rpcplugin import plugin_protocol, plugin_server
from pyvider.rpcplugin.protocol.base import RPCPluginProtocol

from tests.plugins.echo_plugin import Echo as MyServiceHandler
from tests.protos import echo_grpc as my_service_pb2_grpc, echo_pb2 as my_service_pb2


def add_MyServiceServicer_to_server(handler, server):
    server.add_service(handler)


class MyCustomProtocol(RPCPluginProtocol):
    async def get_grpc_descriptors(self):
        return my_service_pb2_grpc, "Echo"

    def get_method_type(self, method_name: str) -> str:
        method_types = {
            "UnaryMethod": "unary_unary",
            "StreamMethod": "unary_stream",
            "UploadMethod": "stream_unary",
            "BidirectionalMethod": "stream_stream",
        }
        return method_types.get(method_name, "unary_unary")

    async def add_to_server(self, server, handler):
        add_MyServiceServicer_to_server(handler, server)


def make_protocol(kind: str):
    match kind:
        case "basic":
            return plugin_protocol(
                service_name="MyService",
                descriptor_module=my_service_pb2,
                servicer_add_fn=add_MyServiceServicer_to_server,
            )
        case "name":
            return plugin_protocol(service_name="MyService")
        case "class":
            return plugin_protocol(protocol_class=MyCustomProtocol, service_name="CustomService")
        case "instance":
            return MyCustomProtocol()
        case "none":
            return None
    raise ValueError(kind)


async def main() -> None:
    # Create server
    server = plugin_server(
        protocol=make_protocol(sys.argv[2]),
        handler=MyServiceHandler(),
        transport="tcp",
        host="127.0.0.1",
        port=0,
        transport_path=None,
        config={"PLUGIN_MAX_WORKERS": 50, "PLUGIN_LOG_LEVEL": "DEBUG"},
    )

    # Start server
    await server.serve()


if __name__ == "__main__":
    if sys.argv[1] == "trio":
        trio.run(main)
    else:
        asyncio.run(main())
