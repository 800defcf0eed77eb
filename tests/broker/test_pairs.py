"""Brokered connections between a real host and a real plugin."""

from __future__ import annotations

import os
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import (
    RPCPluginClient,
    RPCPluginError,
    TransportError,
    context,
    plugin_client,
)
from pyvider_rpcplugin.rpc import Channel, open_channel
from pyvider_rpcplugin.transport import transport_for, wrap_client
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.process

LOOPS = ["asyncio", "trio"]


class Callback(EchoBase):
    """What the host serves to its plugin."""

    def __init__(self, name: str = "host") -> None:
        self.name = name
        self.contexts: list[Any] = []
        self.called = anyio.Event()
        self.hangs = False

    async def Unary(self, stream):
        request = await stream.recv_message()
        self.called.set()
        self.contexts.append(context().broker)
        if self.hangs:
            await anyio.Event().wait()
        await stream.send_message(EchoReply(text=f"{self.name} heard {request.text}"))

    async def ServerStream(self, stream):
        raise NotImplementedError

    async def ClientStream(self, stream):
        raise NotImplementedError

    async def Bidi(self, stream):
        raise NotImplementedError


def make(*arguments: str, **options: Any) -> RPCPluginClient:
    path = Path(__file__).parents[1] / "plugins" / "broker_plugin.py"
    return plugin_client([sys.executable, str(path), *arguments], **options)


async def ask(client: RPCPluginClient, text: str, number: int = 0) -> str:
    reply = await client.stub(EchoStub).Unary(EchoRequest(text=text, count=number))
    return reply.text


def kill(client: RPCPluginClient) -> None:
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)


async def number_from(stream: Any, name: str) -> int:
    """Have the plugin serve an inner service, and return its number."""
    await stream.send_message(EchoRequest(text=name), end=True)
    number: int = (await stream.recv_message()).index
    return number


@asynccontextmanager
async def inner_number(client: RPCPluginClient, name: str) -> AsyncIterator[int]:
    """The number of a service that the plugin serves while the block runs."""
    async with client.stub(EchoStub).ServerStream.open() as stream:
        yield await number_from(stream, name)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("auto_mtls", [True, False], ids=["mtls", "plain"])
async def test_a_plugin_calls_its_host_back_during_a_call_and_the_other_way_round(
    loop: str, transport: str, auto_mtls: bool
) -> None:
    with anyio.fail_after(15):
        async with make("--loop", loop, "--transport", transport, auto_mtls=auto_mtls) as client:
            callback = Callback()
            async with client.broker.serve(callback) as number:
                assert number == 1
                assert await ask(client, "call-back", number) == "host heard from the plugin"
            assert callback.contexts == [client.broker]
            async with (
                inner_number(client, "inner") as number,
                client.broker.dial(number) as channel,
            ):
                assert number == 1  # each side counts for itself
                stub = EchoStub(channel)
                assert len(await stub.ServerStream(EchoRequest(count=3))) == 3
                replies = await stub.Bidi([EchoRequest(text="a"), EchoRequest(text="b")])
                assert [reply.text for reply in replies] == ["a", "b"]
                assert (await stub.Unary(EchoRequest(text="hello"))).text == "inner: hello"
        assert client.exit is not None
        assert client.exit.status == 0


async def test_several_services_at_once_in_both_directions() -> None:
    async def both(client: RPCPluginClient, name: str) -> None:
        async with client.broker.serve([Callback(name)]) as number:
            assert await ask(client, "call-back", number) == f"{name} heard from the plugin"
        async with inner_number(client, name) as number, client.broker.dial(number) as channel:
            assert (await EchoStub(channel).Unary(EchoRequest(text="x"))).text == f"{name}: x"

    with anyio.fail_after(20):
        async with make() as client, anyio.create_task_group() as tg:
            for index in range(10):
                tg.start_soon(both, client, f"n{index}")


async def test_a_number_that_nobody_serves_is_an_error_that_says_so() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            with pytest.raises(TransportError, match=r"plugin announced no service 77 within 0\.1"):
                async with client.broker.dial(77, timeout=0.1):
                    pass
            text = await ask(client, "dial", 78)
            assert text.startswith("TransportError: the host announced no service 78")


async def test_a_number_is_dialled_once() -> None:
    with anyio.fail_after(10):
        async with make() as client, inner_number(client, "inner") as number:
            async with client.broker.dial(number):
                pass
            with pytest.raises(TransportError, match="announced no service"):
                async with client.broker.dial(number, timeout=0.1):
                    pass


async def test_calls_over_a_brokered_connection_end_with_the_plugin() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            broker = client.broker
            async with client.stub(EchoStub).ServerStream.open() as stream:
                number = await number_from(stream, "for ever")
                async with broker.dial(number) as channel, EchoStub(channel).Bidi.open() as call:
                    await call.send_message(EchoRequest(text="x"))
                    await call.recv_message()
                    kill(client)
                    with pytest.raises(GRPCError) as caught:
                        await call.recv_message()
                    assert caught.value.status is Status.UNAVAILABLE
                    await call.cancel()
                await stream.cancel()
            with pytest.raises(TransportError, match=r"SIGKILL|closed"):
                async with broker.dial(5):
                    pass


async def test_a_dial_that_waits_ends_with_the_plugin() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            broker = client.broker

            async def dial() -> None:
                with pytest.raises(TransportError, match=r"SIGKILL|closed|has ended"):
                    async with broker.dial(5, timeout=60):
                        pass

            async with anyio.create_task_group() as tg:
                tg.start_soon(dial)
                await ask(client, "x")
                kill(client)


async def test_leaving_the_block_ends_the_service_and_a_call_that_hangs() -> None:
    callback = Callback()
    callback.hangs = True
    with anyio.fail_after(10):
        async with make(grpc_grace_period=0.1) as client, anyio.create_task_group() as tg:

            async def call_back(number: int) -> None:
                with pytest.raises(GRPCError):
                    await ask(client, "call-back", number)

            async with client.broker.serve(callback) as number:
                tg.start_soon(call_back, number)
                await callback.called.wait()


async def test_the_body_may_be_cancelled_and_what_it_served_ends() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            with anyio.CancelScope() as scope:
                async with client.broker.serve(Callback()):
                    scope.cancel()
                    await anyio.Event().wait()
            async with inner_number(client, "inner") as number:
                with anyio.CancelScope() as scope:
                    async with client.broker.dial(number):
                        scope.cancel()
                        await anyio.Event().wait()
            assert await ask(client, "alive") == "alive"


async def test_go_plugins_terms_do_the_same() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            broker = client.broker
            number = broker.next_id()
            async with anyio.create_task_group() as tg:
                await tg.start(broker.accept_and_serve, number, Callback())
                assert await ask(client, "call-back", number) == "host heard from the plugin"
                tg.cancel_scope.cancel()
            number = broker.next_id()
            async with broker.accept(number) as listener, anyio.create_task_group() as tg:

                async def accept() -> None:
                    stream = await listener.accept()
                    await stream.aclose()

                tg.start_soon(accept)
                assert "TransportError" in await ask(client, "dial", number)


async def test_blocks_may_be_left_in_any_order() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            first = client.broker.serve(Callback("first"))
            second = client.broker.serve(Callback("second"))
            await first.__aenter__()
            number = await second.__aenter__()
            await first.__aexit__(None, None, None)
            assert await ask(client, "call-back", number) == "second heard from the plugin"
            await second.__aexit__(None, None, None)


async def test_a_service_lives_longer_than_the_deadline_of_the_call_that_began_it() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            async with client.stub(EchoStub).ServerStream.open(timeout=9) as stream:
                number = await number_from(stream, "inner")
                async with client.broker.dial(number) as channel:
                    reply = await EchoStub(channel).Unary(EchoRequest(text="context"))
                    assert reply.text == "None Broker"


async def test_handlers_find_their_calls_deadline_and_metadata() -> None:
    with anyio.fail_after(10):
        async with make() as client:
            stub = client.stub(EchoStub)
            assert await ask(client, "deadline") == "False"
            assert (await stub.Unary(EchoRequest(text="deadline"), timeout=5)).text == "True"
            reply = await stub.Unary(EchoRequest(text="metadata"), metadata={"word": "w"})
            assert reply.text == "w"


@pytest.mark.parametrize("encrypted", [True, False], ids=["foreign certificate", "no TLS"])
async def test_nobody_else_gets_into_a_brokered_socket(
    encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.fail_after(15):
        async with make(connection_timeout=5) as client:
            broker = client.broker
            heard: list[Any] = []
            put = broker._boxes.put

            def listen_in(info: Any, now: float) -> str | None:
                heard.append(info)
                return put(info, now)

            monkeypatch.setattr(broker._boxes, "put", listen_in)
            async with inner_number(client, "for ever"):
                while not heard:
                    await anyio.lowlevel.checkpoint()
                await refuses(heard[0].network, heard[0].address, encrypted)
            async with broker.serve(Callback()):
                sockets = unix_sockets()
                assert len(sockets) >= 2  # the plugin's own, and this one
                for path in sockets:
                    await refuses("unix", str(path), encrypted)


def unix_sockets() -> list[Path]:
    return [path for path in Path(os.environ["TMPDIR"]).rglob("*.sock") if path.is_socket()]


async def refuses(network: str, address: str, encrypted: bool) -> None:
    """Check that a client who knows the address but has no part in the pair gets nowhere."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    tls.set_alpn_protocols(["h2"])

    async def connect():
        stream = await transport_for(network, address).connect()
        return await wrap_client(stream, tls) if encrypted else stream

    with pytest.raises(RPCPluginError):
        async with open_channel(Channel(connect)) as channel:
            await EchoStub(channel).Unary(EchoRequest(text="let me in"))


async def test_standalone_servers_have_no_broker() -> None:
    from pyvider_rpcplugin import plugin_server

    class Asking(Callback):
        async def Unary(self, stream):
            await stream.recv_message()
            with pytest.raises(RPCPluginError, match="no broker"):
                _ = context().broker
            await stream.send_message(EchoReply(text="none"))

    with anyio.fail_after(10):
        async with plugin_server(handler=Asking(), standalone=True).serve() as address:
            async with plugin_client(address=address) as client:
                assert (await client.stub(EchoStub).Unary(EchoRequest())).text == "none"
                with pytest.raises(RPCPluginError, match="no broker"):
                    _ = client.broker


def test_there_is_no_context_outside_of_a_call() -> None:
    with pytest.raises(RPCPluginError, match="no call being handled"):
        context()


async def test_the_broker_of_a_client_that_does_not_run_is_an_error() -> None:
    with pytest.raises(RPCPluginError, match="not running"):
        _ = make().broker
