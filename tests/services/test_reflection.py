"""Reflection, asked in the messages of another implementation, and compared with its answers."""

from __future__ import annotations

import anyio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, type_pb2
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.reflection_pb2 import (  # type: ignore[import-untyped]
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import given, strategies as st

from pyvider_rpcplugin import plugin_client, plugin_server
from pyvider_rpcplugin.services._descriptors import Answers
from pyvider_rpcplugin.services.reflection import _Message as Message
from tests.plugins.echo_plugin import Echo
from tests.plugins.misc_plugin import Misc

# grpcio, which the messages come with, keeps what it opens.
pytestmark = [pytest.mark.net, pytest.mark.interop]

VERSIONS = pytest.mark.parametrize("version", ["v1", "v1alpha"])
ECHO = "testing.echo.Echo"
NAMES = (ECHO, "misc.Misc")
# So that it is known here: nothing else of the tests uses it.
assert type_pb2.DESCRIPTOR.name == "google/protobuf/type.proto"
# The last three are no requests that somebody would make.
REQUESTS = {
    "services": ServerReflectionRequest(list_services="*"),
    "host": ServerReflectionRequest(host="somewhere", list_services=""),
    "file": ServerReflectionRequest(file_by_filename="tests/protos/echo.proto"),
    "service": ServerReflectionRequest(file_containing_symbol=ECHO),
    "method": ServerReflectionRequest(file_containing_symbol=f"{ECHO}.Unary"),
    "message": ServerReflectionRequest(file_containing_symbol="testing.echo.EchoReply"),
    "well-known": ServerReflectionRequest(file_containing_symbol="google.protobuf.Type"),
    "extension": ServerReflectionRequest(
        file_containing_extension=ExtensionRequest(
            containing_type="testing.extended.Open", extension_number=101
        )
    ),
    "extensions": ServerReflectionRequest(all_extension_numbers_of_type="testing.extended.Open"),
    "no extensions": ServerReflectionRequest(
        all_extension_numbers_of_type="testing.echo.EchoReply"
    ),
    "unknown file": ServerReflectionRequest(file_by_filename="no.proto"),
    "unknown symbol": ServerReflectionRequest(file_containing_symbol="misc.Misc"),
    "unknown type": ServerReflectionRequest(all_extension_numbers_of_type="no.Type"),
    "unknown extension": ServerReflectionRequest(
        file_containing_extension=ExtensionRequest(
            containing_type="testing.extended.Open", extension_number=102
        )
    ),
    "extension of nothing": ServerReflectionRequest(
        file_containing_extension=ExtensionRequest(containing_type="no.Type", extension_number=1)
    ),
    "negative extension": ServerReflectionRequest(
        file_containing_extension=ExtensionRequest(
            containing_type="testing.extended.Open", extension_number=-1
        )
    ),
    "empty name": ServerReflectionRequest(file_containing_symbol=""),
    "nothing": ServerReflectionRequest(),
}


@pytest.fixture(scope="module", autouse=True)
def extended() -> None:
    """Register a message that has extensions, as generated code does."""
    file = descriptor_pb2.FileDescriptorProto(
        name="testing/extended.proto", package="testing.extended", syntax="proto2"
    )
    file.message_type.add(name="Open").extension_range.add(start=100, end=200)
    for number in (150, 101):
        file.extension.add(
            name=f"extra{number}",
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            extendee=".testing.extended.Open",
        )
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


def files_of(response: ServerReflectionResponse) -> list[str]:
    return sorted(
        descriptor_pb2.FileDescriptorProto.FromString(data).name
        for data in response.file_descriptor_response.file_descriptor_proto
    )


def answered(request: ServerReflectionRequest) -> ServerReflectionResponse:
    answer = Answers(lambda: NAMES).answer(request.SerializeToString())
    return ServerReflectionResponse.FromString(answer)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_that_of_grpcio(name: str) -> None:
    request = REQUESTS[name]
    theirs = reflection.ReflectionServicer(service_names=NAMES)
    [expected] = theirs.ServerReflectionInfo(iter([request]), None)
    got = answered(request)
    kind = got.WhichOneof("message_response")
    assert kind == expected.WhichOneof("message_response")
    assert got.original_request == request
    assert got.valid_host == request.host
    if kind == "file_descriptor_response":
        assert files_of(got) == files_of(expected)
    elif kind == "error_response":
        assert got.error_response.error_code == expected.error_response.error_code
        assert got.error_response.error_message
    else:
        # They tell them in no order.
        assert str(got).splitlines().sort() == str(expected).splitlines().sort()


def test_a_file_comes_with_what_it_imports_once_on_a_stream() -> None:
    answers = Answers(tuple)
    # `Type` is in type.proto, which imports any.proto and source_context.proto.
    request = ServerReflectionRequest(file_containing_symbol="google.protobuf.Type")
    said = [answers.answer(request.SerializeToString()) for _ in range(2)]
    first, second = (files_of(ServerReflectionResponse.FromString(data)) for data in said)
    folder = "google/protobuf"
    assert first == [
        f"{folder}/any.proto", f"{folder}/source_context.proto", f"{folder}/type.proto"
    ]  # fmt: skip
    assert second == [f"{folder}/type.proto"]


@given(st.binary(max_size=40) | st.binary(max_size=9).map(lambda data: b"\x2a\x09" + data))
def test_nonsense_has_an_answer_or_is_no_request_and_nothing_worse(data: bytes) -> None:
    try:
        answer = Answers(lambda: NAMES).answer(data)
    except ValueError:
        return
    response = ServerReflectionResponse.FromString(answer)
    assert response.WhichOneof("message_response")


def open_stream(channel, version: str):
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    return channel.request(
        path, Cardinality.STREAM_STREAM, ServerReflectionRequest, ServerReflectionResponse
    )


@VERSIONS
async def test_a_server_lists_its_services_and_describes_what_was_generated(version: str) -> None:
    server = plugin_server(handler=Echo())
    with anyio.fail_after(5):
        async with (
            server.serve(debug=True) as address,
            plugin_client(address=address) as client,
            open_stream(client.grpc_channel, version) as stream,
        ):
            await stream.send_message(REQUESTS["services"])
            listed = (await stream.recv_message()).list_services_response.service
            assert [service.name for service in listed] == [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "plugin.GRPCBroker",
                "plugin.GRPCStdio",
                ECHO,
            ]
            await stream.send_message(REQUESTS["service"])
            assert files_of(await stream.recv_message()) == ["tests/protos/echo.proto"]
            # An error is an answer, and the stream goes on.
            await stream.send_message(REQUESTS["unknown symbol"])
            error = (await stream.recv_message()).error_response
            assert error.error_code == Status.NOT_FOUND.value
            await stream.send_message(REQUESTS["extensions"], end=True)
            numbers = (await stream.recv_message()).all_extension_numbers_response
            assert list(numbers.extension_number) == [101, 150]
            assert await stream.recv_message() is None


@pytest.mark.parametrize("data", [b"\xff", b"\x1a\x02\xff\xff"])
async def test_a_message_that_is_no_request_ends_the_stream_alone(data: bytes) -> None:
    server = plugin_server(handler=Misc(), standalone=True)
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            with pytest.raises(GRPCError) as caught:
                async with client.grpc_channel.request(  # type: ignore[union-attr]
                    path, Cardinality.STREAM_STREAM, Message, Message
                ) as stream:
                    await stream.send_message(Message(data))
                    await stream.recv_message()
            assert caught.value.status is Status.INVALID_ARGUMENT
            await client.ping()


async def test_whoever_asks_does_not_hold_up_the_end() -> None:
    server = plugin_server(handler=Misc(), standalone=True, grpc_grace_period=60)
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            async with open_stream(client.grpc_channel, "v1") as stream:
                await stream.send_message(REQUESTS["services"])
                await stream.recv_message()
                await server.stop()
                assert await stream.recv_message() is None
                await stream.cancel()


async def test_the_setting_turns_it_off() -> None:
    server = plugin_server(handler=Misc(), standalone=True, reflection_enabled=False)
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            async with open_stream(client.grpc_channel, "v1") as stream:
                await stream.send_message(REQUESTS["services"])
                with pytest.raises(GRPCError) as caught:
                    await stream.recv_message()
    assert caught.value.status is Status.UNIMPLEMENTED
