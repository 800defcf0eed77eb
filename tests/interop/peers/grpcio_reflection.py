"""Looks around in a server by grpcio's reflection client, and calls it by what it found."""

from __future__ import annotations

import json
import sys

import grpc  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)


def health(channel: grpc.Channel, pool: DescriptorPool, method_name: str) -> object:
    """Call a method of the health service by what describes it there."""
    method = pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName(method_name)
    kinds = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    path = f"/grpc.health.v1.Health/{method_name}"
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    answer = make(path, kinds[0].SerializeToString, kinds[1].FromString)(kinds[0](), timeout=5)
    if method.server_streaming:
        answer, call = next(answer), answer
        call.cancel()
    return MessageToDict(answer)


def look(address: str) -> dict[str, object]:
    """Say what the server at this address serves, and what one method of it answers."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = list(database.get_services())
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("testing.echo.Echo")
        method = service.FindMethodByName("Unary")
        kinds = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{service.full_name}/{method.name}", kinds[0].SerializeToString, kinds[1].FromString
        )
        try:
            pool.FindServiceByName("plugin.GRPCBroker")
        except KeyError:
            described = False
        else:
            described = True
        return {
            "services": services,
            "methods": [found.name for found in service.methods],
            "answer": call(kinds[0](text="found"), timeout=5).text,
            "broker is described": described,
            "health": {name: health(channel, pool, name) for name in ("Check", "List", "Watch")},
        }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(sys.argv[1])))
