"""The plugin of the API reference with the modules that grpcio-tools generates.

Arguments: the loop, which of the documented protocols, and where the generated modules are.
"""

from __future__ import annotations

import asyncio
import sys

sys.path.insert(0, sys.argv[3])

import my_pb2_grpc  # type: ignore[import-not-found]
import my_service_pb2  # type: ignore[import-not-found]
import my_service_pb2_grpc  # type: ignore[import-not-found]
import trio
from my_service_pb2_grpc import add_MyServiceServicer_to_server
from pyvider.rpcplugin import plugin_protocol, plugin_server
from pyvider.rpcplugin.protocol.base import RPCPluginProtocol


class MyServiceHandler:
    async def MyMethod(self, request, context):
        return my_service_pb2.MyResponse(text=request.text)

    async def UnaryMethod(self, request, context):
        return my_service_pb2.MyResponse(text=request.text)

    async def StreamMethod(self, request, context):
        yield my_service_pb2.MyResponse(text=request.text)

    async def UploadMethod(self, request_iterator, context):
        texts = [request.text async for request in request_iterator]
        return my_service_pb2.MyResponse(text=" ".join(texts))

    async def BidirectionalMethod(self, request_iterator, context):
        async for request in request_iterator:
            yield my_service_pb2.MyResponse(text=request.text)


class MyHandler(my_pb2_grpc.MyServiceServicer):  # type: ignore[misc]
    def MyMethod(self, request, context):
        return my_service_pb2.MyResponse(text=request.text)


# RPCPluginProtocol, as it is written there


class MyProtocol(RPCPluginProtocol):
    async def get_grpc_descriptors(self):
        return my_pb2_grpc, "MyService"

    async def add_to_server(self, server, handler):
        my_pb2_grpc.add_MyServiceServicer_to_server(handler, server)


# Custom protocol implementation, as it is written there


class MyCustomProtocol(RPCPluginProtocol):
    async def get_grpc_descriptors(self):
        return my_service_pb2_grpc, "MyCustomService"

    def get_method_type(self, method_name: str) -> str:
        method_types = {
            "UnaryMethod": "unary_unary",
            "StreamMethod": "unary_stream",
            "UploadMethod": "stream_unary",
            "BidirectionalMethod": "stream_stream",
        }
        return method_types.get(method_name, "unary_unary")

    async def add_to_server(self, server, handler):
        my_service_pb2_grpc.add_MyCustomServiceServicer_to_server(handler, server)


async def basic() -> None:
    # Create protocol
    protocol = plugin_protocol(
        service_name="MyService",
        descriptor_module=my_service_pb2,
        servicer_add_fn=add_MyServiceServicer_to_server,
    )

    # Create server
    server = plugin_server(
        protocol=protocol,
        handler=MyServiceHandler(),
        transport="tcp",
        port=0,
    )

    # Start server
    await server.serve()


async def main() -> None:
    match sys.argv[2]:
        case "basic":
            await basic()
        case "base":
            my_protocol = MyProtocol()
            assert my_protocol.get_method_type("MyMethod") == "unary_unary"
            await plugin_server(protocol=my_protocol, handler=MyServiceHandler()).serve()
        case "custom":
            protocol = plugin_protocol(
                protocol_class=MyCustomProtocol, service_name="CustomService"
            )
            await plugin_server(protocol=protocol, handler=MyServiceHandler()).serve()
        case "none":
            await plugin_server(handler=MyHandler()).serve()


if __name__ == "__main__":
    if sys.argv[1] == "trio":
        trio.run(main)
    else:
        asyncio.run(main())
