"""Interceptors and the rate limit of a plugin and its host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import plugin_client, plugin_server
from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc import InterceptedCall, Observer
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.pages import shown
from tests.plugins import FOLDER
from tests.plugins.echo_plugin import Echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.stubs.generated import EchoStub as ServicerStub


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}."


class Seen:
    """An interceptor that notes what it sees."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, call: InterceptedCall) -> None:
        self.methods.append(call.method.rpartition("/")[2])


async def test_both_sides_see_the_calls_of_the_application_and_no_others() -> None:
    seen, handled = Seen(), Seen()
    server = plugin_server(handler=Echo(), standalone=True, interceptors=[handled])
    with anyio.fail_after(5):
        async with server.serve() as address:
            async with plugin_client(address=address, interceptors=[seen]) as client:
                await client.ping()
                await client.stub(EchoStub).Unary(EchoRequest())
    assert seen.methods == handled.methods == ["Unary"]


async def test_a_proxys_calls_are_seen() -> None:
    seen, handled = Seen(), Seen()
    server = plugin_server(handler=Greeter(), standalone=True, interceptors=[handled])
    with anyio.fail_after(5):
        async with server.serve() as address:
            async with plugin_client(address=address, interceptors=[seen]) as client:
                assert await client.proxy(Greeter).hello("Ada") == "Hello, Ada."
    assert "hello" in seen.methods
    assert handled.methods == seen.methods


@pytest.mark.process
@pytest.mark.parametrize("options", [{}, {"lazy": True}], ids=["plain", "supervised"])
async def test_a_hosts_interceptors_do_not_see_what_the_two_sides_live_by(
    options: dict[str, Any],
) -> None:
    seen = Seen()
    command = [sys.executable, str(FOLDER / "echo_plugin.py")]
    with anyio.fail_after(10):
        async with plugin_client(command, interceptors=[seen], **options) as client:
            await client.stub(EchoStub).Unary(EchoRequest())
    assert seen.methods == ["Unary"]


async def test_the_rate_limit_refuses_calls_of_the_application_alone() -> None:
    server = plugin_server(
        handler=Echo(),
        standalone=True,
        rate_limit_enabled=True,
        rate_limit_requests_per_second=0.001,
        rate_limit_burst_capacity=2,
    )
    with anyio.fail_after(5):
        async with server.serve() as address:
            async with plugin_client(address=address) as client:
                stub = client.stub(EchoStub)
                await stub.Unary(EchoRequest())
                await stub.Unary(EchoRequest())
                with pytest.raises(GRPCError) as caught:
                    await stub.Unary(EchoRequest())
                assert caught.value.status is Status.RESOURCE_EXHAUSTED
                for _ in range(5):
                    await client.ping()


@pytest.mark.process
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
async def test_the_program_of_the_page(loop: str, tmp_path: Path) -> None:
    program = tmp_path / "interceptors.py"
    program.write_text(shown("interceptors.md", "interceptors.py"))
    with anyio.fail_after(15):
        done = await anyio.run_process([sys.executable, "-W", "error", str(program), loop])
    assert done.stdout.decode().splitlines() == ["Hello, Ada.", "only for Ada"]


async def test_what_is_no_interceptor_is_said_at_the_start() -> None:
    wrong: Any = [object()]
    with pytest.raises(ProtocolError, match="no interceptor of a client"):
        await plugin_client(["true"], interceptors=wrong).start()
    server = plugin_server(handler=Echo(), standalone=True, interceptors=wrong)
    with pytest.raises(ProtocolError, match="no interceptor of a server"):
        await server.serve()


@pytest.mark.process
@pytest.mark.parametrize("make_stub", [EchoStub, ServicerStub], ids=["grpclib", "grpcio"])
def test_a_blocking_clients_interceptors_see_its_calls(make_stub: Any) -> None:
    seen: list[str] = []

    async def note(call: InterceptedCall) -> Observer:
        seen.append(call.method.rpartition("/")[2])
        call.limit(5)
        return lambda status: seen.append(status.status.name)

    command = [sys.executable, str(FOLDER / "echo_plugin.py")]
    with plugin_client_sync(command, interceptors=[note]) as client:
        stub = client.stub(make_stub)
        assert stub.Unary(EchoRequest(text="x")).text == "x"
        assert len(list(stub.ServerStream(EchoRequest(count=2)))) == 2
    assert seen == ["Unary", "OK", "ServerStream", "OK"]


@pytest.mark.process
def test_a_blocking_clients_interceptors_must_not_wait() -> None:
    async def wait(call: InterceptedCall) -> None:
        await Never()

    class Never:
        def __await__(self) -> Any:
            yield

    command = [sys.executable, str(FOLDER / "echo_plugin.py")]
    with plugin_client_sync(command, interceptors=[wait]) as client:
        with pytest.raises(RuntimeError, match="only an event loop can wait for"):
            client.stub(EchoStub).Unary(EchoRequest())
