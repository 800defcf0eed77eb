"""The health service as protobuf describes it, for those who ask what it is.

Nobody generated code for it here, so it is not among the descriptors that protobuf knows of. Where
a program has generated code of its own, that goes first; this one has a place of its own, since
two files of one name do not go into the same.
"""

from __future__ import annotations

from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

_FILE = """
    name: "grpc/health/v1/health.proto" package: "grpc.health.v1" syntax: "proto3"
    message_type {
        name: "HealthCheckRequest"
        field { name: "service" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    }
    message_type {
        name: "HealthCheckResponse"
        field {
            name: "status" number: 1 label: LABEL_OPTIONAL type: TYPE_ENUM
            type_name: ".grpc.health.v1.HealthCheckResponse.ServingStatus"
        }
        enum_type {
            name: "ServingStatus"
            value { name: "UNKNOWN" number: 0 }
            value { name: "SERVING" number: 1 }
            value { name: "NOT_SERVING" number: 2 }
            value { name: "SERVICE_UNKNOWN" number: 3 }
        }
    }
    message_type { name: "HealthListRequest" }
    message_type {
        name: "HealthListResponse"
        field {
            name: "statuses" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
            type_name: ".grpc.health.v1.HealthListResponse.StatusesEntry"
        }
        nested_type {
            name: "StatusesEntry"
            options { map_entry: true }
            field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
            field {
                name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE
                type_name: ".grpc.health.v1.HealthCheckResponse"
            }
        }
    }
    service {
        name: "Health"
        method {
            name: "Check" input_type: ".grpc.health.v1.HealthCheckRequest"
            output_type: ".grpc.health.v1.HealthCheckResponse"
        }
        method {
            name: "List" input_type: ".grpc.health.v1.HealthListRequest"
            output_type: ".grpc.health.v1.HealthListResponse"
        }
        method {
            name: "Watch" input_type: ".grpc.health.v1.HealthCheckRequest"
            output_type: ".grpc.health.v1.HealthCheckResponse" server_streaming: true
        }
    }
"""


def health_pool() -> descriptor_pool.DescriptorPool:
    """Make a pool that has the health service, and nothing else."""
    pool = descriptor_pool.DescriptorPool()
    file = text_format.Parse(_FILE, FileDescriptorProto())
    pool.AddSerializedFile(file.SerializeToString())
    return pool
