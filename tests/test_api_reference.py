"""The snippets of the API reference, as they are written there, under the documented name."""

from __future__ import annotations

import importlib
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import anyio
import pytest
from pyvider.rpcplugin import plugin_client, plugin_protocol, plugin_server
from pyvider.rpcplugin.exception import (
    ConfigError,
    HandshakeError,
    ProtocolError,
    RPCPluginError,
    SecurityError,
    TransportError,
)
from pyvider.rpcplugin.protocol.base import RPCPluginProtocol
from pyvider.rpcplugin.transport import (
    RPCPluginTransport,
    TCPSocketTransport,
    UnixSocketTransport,
)
from pyvider.rpcplugin.types import (
    TRANSPORT_TYPES,
    ConfigT,
    GrpcChannelType,
    GrpcCredentialsType,
    HandlerT,
    ProtocolT,
    RpcConfigType,
    TransportT,
)

from pyvider_rpcplugin.codegen import generate
from tests.crypto.material import make
from tests.plugins import FOLDER
from tests.plugins.documented_plugin import MyCustomProtocol
from tests.plugins.echo_plugin import Echo as MyServiceHandler
from tests.protos.echo_grpc import EchoStub as MyServiceStub
from tests.protos.echo_pb2 import EchoRequest as MyRequest

ROOT = Path(__file__).parents[1]
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def documented(loop: str, protocol: str = "basic") -> list[str]:
    return [sys.executable, str(FOLDER / "documented_plugin.py"), loop, protocol]


# Factory functions


async def test_plugin_client() -> None:
    client = plugin_client(command=documented("asyncio"), config={"PLUGIN_HANDSHAKE_TIMEOUT": 15.0})
    with anyio.fail_after(10):
        await client.start()
        assert client.grpc_channel is not None
        await client.close()
        assert client.grpc_channel is None


@LOOPS
@pytest.mark.parametrize("protocol", ["basic", "name", "class", "instance", "none"])
async def test_every_documented_protocol_serves(loop: str, protocol: str) -> None:
    with anyio.fail_after(10):
        async with plugin_client(command=documented(loop, protocol)) as client:
            if client.grpc_channel:
                stub = MyServiceStub(client.grpc_channel)
                assert (await stub.Unary(MyRequest(text="x"))).text == "x"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the modules that grpcio-tools generates, where imports find them."""
    folder = tmp_path_factory.mktemp("generated")
    generate(ROOT / "tests" / "protos" / "documented", folder, kinds=["grpcio"])
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@LOOPS
@pytest.mark.parametrize("protocol", ["basic", "base", "custom", "none"])
async def test_the_same_with_what_grpcio_generates(
    loop: str, protocol: str, generated: Path
) -> None:
    my_service_pb2 = importlib.import_module("my_service_pb2")
    my_pb2_grpc = importlib.import_module("my_pb2_grpc")
    my_service_pb2_grpc = importlib.import_module("my_service_pb2_grpc")
    MyRequest = my_service_pb2.MyRequest  # noqa: N806 - as the reference has it
    plugin = FOLDER / "documented_servicer_plugin.py"
    with anyio.fail_after(10):
        command = [sys.executable, str(plugin), loop, protocol, str(generated)]
        async with plugin_client(command=command) as client:
            channel: Any = client.grpc_channel
            if protocol == "custom":
                stub: Any = my_service_pb2_grpc.MyCustomServiceStub(channel)
                assert (await stub.UnaryMethod(MyRequest(text="a"))).text == "a"
                assert [r.text async for r in stub.StreamMethod(MyRequest(text="b"))] == ["b"]
                assert (await stub.UploadMethod([MyRequest(text="c")])).text == "c"
                both = stub.BidirectionalMethod([MyRequest(text="d")])
                assert [r.text async for r in both] == ["d"]
            else:
                module = my_service_pb2_grpc if protocol == "basic" else my_pb2_grpc
                stub = module.MyServiceStub(channel)
                assert (await stub.MyMethod(MyRequest(text="a"))).text == "a"


def test_plugin_protocol() -> None:
    protocol: Any = plugin_protocol(protocol_class=MyCustomProtocol, service_name="CustomService")
    assert isinstance(protocol, MyCustomProtocol)
    assert protocol.service_name == "CustomService"
    assert protocol.get_method_type("UploadMethod") == "stream_unary"
    assert protocol.get_method_type("Other") == "unary_unary"


# Core classes


async def test_server_serve_stop_and_get_address() -> None:
    server = plugin_server(
        protocol=plugin_protocol(service_name="MyService"),
        handler=MyServiceHandler(),
        transport="tcp",
        standalone=True,
    )
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            await tg.start(server.serve)
            address = server.get_address()  # e.g., "127.0.0.1:50051"
            host, _, port = address.partition(":")
            assert host == "127.0.0.1"
            assert int(port) > 0
            await server.stop(grace_period=5.0)


async def test_client_start_grpc_channel_and_stop() -> None:
    client = plugin_client(command=documented("asyncio"))
    assert client.grpc_channel is None
    with anyio.fail_after(10):
        await client.start()
        if client.grpc_channel:
            stub = MyServiceStub(client.grpc_channel)
            response = await stub.Unary(MyRequest(text="hello"))
            assert response.text == "hello"
        await client.stop()


# Transport classes


async def test_transports(tmp_path) -> None:
    for transport in (
        TCPSocketTransport(host="127.0.0.1", port=0),
        UnixSocketTransport(path=str(tmp_path / "my_service.sock")),
    ):
        server = plugin_server(handler=MyServiceHandler(), transport=transport, standalone=True)
        with anyio.fail_after(5):
            async with server.serve() as address:
                async with plugin_client(address=address) as client:
                    await client.ping()


# Exception classes


def test_exceptions() -> None:
    error = RPCPluginError("message", "hint", 42)
    assert (error.message, error.hint, error.code) == ("message", "hint", 42)
    for kind in (TransportError, ProtocolError, HandshakeError, SecurityError, ConfigError):
        assert issubclass(kind, RPCPluginError)


# Type definitions


def test_types() -> None:
    assert isinstance(HandlerT, TypeVar)
    assert isinstance(ProtocolT, TypeVar)
    assert isinstance(TransportT, TypeVar)
    assert ProtocolT.__bound__ is RPCPluginProtocol
    assert TransportT.__bound__ is RPCPluginTransport
    assert get_args(TRANSPORT_TYPES) == ("unix", "tcp")
    assert Literal["unix", "tcp"] == TRANSPORT_TYPES
    assert ConfigT == RpcConfigType == dict[str, Any]
    assert isinstance(GrpcChannelType, type)
    assert GrpcCredentialsType.__name__ == "SSLContext"


# Usage patterns


@LOOPS
async def test_error_handling_of_a_call_that_works(loop: str) -> None:
    with anyio.fail_after(10):
        response = await call_as_documented(documented(loop))
    assert response.text == "x"


async def test_error_handling_of_a_plugin_that_is_not_there() -> None:
    with anyio.fail_after(10):
        assert str(await call_as_documented(["./my_plugin"])).startswith("Connection error: ")


async def test_error_handling_of_a_command_that_is_no_plugin() -> None:
    with anyio.fail_after(10):
        outcome = await call_as_documented([sys.executable, "-c", "raise SystemExit(2)"])
    assert outcome.startswith("Authentication error: ")


async def test_error_handling_of_a_setting_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGIN_HANDSHAKE_TIMEOUT", "a while")
    with anyio.fail_after(10):
        outcome = await call_as_documented(documented("asyncio"))
    assert outcome.startswith("Plugin error: PLUGIN_HANDSHAKE_TIMEOUT")


async def call_as_documented(command: list[str]) -> Any:
    result: Any = None
    try:
        client = plugin_client(command=command)
        await client.start()

        if client.grpc_channel:
            stub = MyServiceStub(client.grpc_channel)
            result = await stub.Unary(MyRequest(text="x"))

    except TransportError as e:
        result = f"Connection error: {e}"
    except HandshakeError as e:
        result = f"Authentication error: {e}"
    except RPCPluginError as e:
        result = f"Plugin error: {e}"
    finally:
        await client.stop()  # type: ignore[possibly-undefined]
    return result


@LOOPS
async def test_secure_configuration(
    loop: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = make(name="authority", ca=True)
    (tmp_path / "ca.crt").write_text(authority.pem)
    for name in ("server", "client"):
        own = make(issuer=authority)
        (tmp_path / f"{name}.crt").write_text(own.pem)
        (tmp_path / f"{name}.key").write_text(own.key_pem)
    for name, value in {
        "PLUGIN_AUTO_MTLS": "true",
        "PLUGIN_CA_CERT": str(tmp_path / "ca.crt"),
        "PLUGIN_SERVER_CERT": str(tmp_path / "server.crt"),
        "PLUGIN_SERVER_KEY": str(tmp_path / "server.key"),
        "PLUGIN_CLIENT_CERT": str(tmp_path / "client.crt"),
        "PLUGIN_CLIENT_KEY": str(tmp_path / "client.key"),
    }.items():
        monkeypatch.setenv(name, value)
    # The plugin takes the same variables. Its file creates the server as the snippet does.
    with anyio.fail_after(10):
        async with plugin_client(command=documented(loop)) as client:
            channel: Any = client.grpc_channel
            assert (await MyServiceStub(channel).Unary(MyRequest(text="x"))).text == "x"
            [connection] = channel._connections
            shown = connection.stream.ssl_object.getpeercert(True)
    assert shown == ssl.PEM_cert_to_DER_cert((tmp_path / "server.crt").read_text())


# Configuration options


async def test_config_overrides_one_client_and_keeps_the_applications_own_keys() -> None:
    client_instance_config = {
        "PLUGIN_HANDSHAKE_TIMEOUT": 20.0,
        "PLUGIN_CLIENT_MAX_RETRIES": 5,
        "mine": object(),
    }
    client = plugin_client(command=documented("trio"), config=client_instance_config)
    assert client.config == client_instance_config
    with anyio.fail_after(10):
        async with client.start():
            pass
