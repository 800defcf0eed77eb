from __future__ import annotations

from typing import Any

import pytest
from grpclib.const import Cardinality, Handler

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.protocol import BasicProtocol, RPCPluginProtocol, register
from pyvider_rpcplugin.rpc import Server
from tests.protos import echo_grpc, echo_pb2, echo_pb2_grpc
from tests.protos.echo_pb2_grpc import add_EchoServicer_to_server


class Registry:
    """What a protocol sees of the server."""

    def __init__(self) -> None:
        self.methods: dict[str, Handler] = {}

    def add_service(self, service: Any) -> None:
        self.methods.update(service.__mapping__())


class Echo:
    async def unary(self, stream: Any) -> None: ...

    def __mapping__(self) -> dict[str, Handler]:
        return {"/e.Echo/Unary": Handler(self.unary, Cardinality.UNARY_UNARY, bytes, bytes)}


class Documented(RPCPluginProtocol):
    async def get_grpc_descriptors(self) -> tuple[Any, str]:
        return echo_grpc, "Echo"

    async def add_to_server(self, server: Any, handler: Any) -> None:
        server.add_service(handler)


class Plain(Documented):
    def add_to_server(self, server: Any, handler: Any) -> None:  # type: ignore[override]
        server.add_service(handler)


@pytest.mark.parametrize("protocol", [None, BasicProtocol("Echo"), Documented(), Plain()])
async def test_a_handler_with_a_mapping_is_registered(protocol: RPCPluginProtocol | None) -> None:
    registry = Registry()
    await register(registry, protocol, Echo())
    assert list(registry.methods) == ["/e.Echo/Unary"]


async def test_an_add_function_may_be_async() -> None:
    async def add(handler: Any, server: Any) -> None:
        server.add_service(handler)

    registry = Registry()
    await register(registry, BasicProtocol("Echo", echo_pb2, add), Echo())
    assert registry.methods


async def test_nothing_to_serve_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="nothing to serve"):
        await register(Registry(), None, object())
    with pytest.raises(ProtocolError, match="registered no service"):
        await register(Registry(), BasicProtocol("x", None, lambda handler, server: None), Echo())


async def test_a_failing_add_function_is_a_protocol_error_with_its_cause() -> None:
    def add(handler: Any, server: Any) -> None:
        raise KeyError("gone")

    with pytest.raises(ProtocolError, match="could not register") as caught:
        await register(Registry(), BasicProtocol("x", None, add), Echo())
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.hint is None


class Servicer(echo_pb2_grpc.EchoServicer):
    async def Unary(self, request: Any, context: Any) -> Any:
        return request


ECHO = ["Bidi", "ClientStream", "ServerStream", "Unary"]


@pytest.mark.parametrize(
    "protocol",
    [None, BasicProtocol("Echo"), BasicProtocol(None, None, add_EchoServicer_to_server)],
)
async def test_what_grpcio_generated_is_registered(protocol: RPCPluginProtocol | None) -> None:
    server = Server()
    await register(server, protocol, Servicer())
    assert sorted(server.methods) == [f"/testing.echo.Echo/{name}" for name in ECHO]


async def test_a_servicer_that_lacks_a_method_is_a_protocol_error() -> None:
    protocol = BasicProtocol(None, None, add_EchoServicer_to_server)
    with pytest.raises(ProtocolError, match="could not register"):
        await register(Server(), protocol, object())


async def test_a_generic_handler_is_something_to_serve() -> None:
    class Generic:
        def service(self, details: Any) -> None: ...

    server = Server()
    add = lambda handler, server: server.add_generic_rpc_handlers((handler,))  # noqa: E731
    await register(server, BasicProtocol(None, None, add), Generic())
    assert not server.methods


@pytest.mark.parametrize("module", [echo_pb2, echo_grpc])
@pytest.mark.parametrize("name", ["Echo", "testing.echo.Echo"])
def test_method_types_come_from_the_descriptors(module: Any, name: str) -> None:
    protocol = BasicProtocol(name, module)
    assert protocol.get_method_type("Unary") == "unary_unary"
    assert protocol.get_method_type("/testing.echo.Echo/ServerStream") == "unary_stream"
    assert protocol.get_method_type("ClientStream") == "stream_unary"
    assert protocol.get_method_type("Bidi") == "stream_stream"


def test_an_unknown_method_is_a_protocol_error_that_names_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match="no method 'Nope'") as caught:
        BasicProtocol("Echo", echo_pb2).get_method_type("Nope")
    assert "Bidi" in (caught.value.hint or "")
    with pytest.raises(ProtocolError, match="no method"):
        BasicProtocol("Echo").get_method_type("Unary")
