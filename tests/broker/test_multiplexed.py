"""Host and plugin with one connection for everything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import ConfigError, TransportError, plugin_client
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

from .test_pairs import LOOPS, Callback, ask, inner_number, kill, make

pytestmark = pytest.mark.process


def make_shared(*arguments: str, **options: Any):
    return make(*arguments, multiplex_grpc=True, **options)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("auto_mtls", [True, False], ids=["mtls", "plain"])
async def test_everything_works_over_one_connection(
    loop: str, transport: str, auto_mtls: bool
) -> None:
    with anyio.fail_after(15):
        arguments = ("--loop", loop, "--transport", transport)
        async with make_shared(*arguments, auto_mtls=auto_mtls) as client:
            async with client.broker.serve(Callback()) as number:
                assert await ask(client, "call-back", number) == "host heard from the plugin"
                # The same number again: here a knock is all that it takes.
                assert await ask(client, "call-back", number) == "host heard from the plugin"
            async with (
                inner_number(client, "inner") as number,
                client.broker.dial(number) as channel,
            ):
                stub = EchoStub(channel)
                replies = await stub.Bidi([EchoRequest(text="a"), EchoRequest(text="b")])
                assert [reply.text for reply in replies] == ["a", "b"]
                assert (await stub.Unary(EchoRequest(text="hello"))).text == "inner: hello"
        assert client.exit is not None
        assert client.exit.status == 0


async def test_there_is_one_socket_and_nobody_else_gets_in() -> None:
    with anyio.fail_after(15):
        async with make_shared() as client, client.broker.serve(Callback()) as number:
            assert await ask(client, "call-back", number) == "host heard from the plugin"
            [path] = unix_sockets()
            with pytest.raises(ConnectionRefusedError):
                await anyio.connect_unix(path)


def unix_sockets() -> list[Path]:
    return [path for path in Path(os.environ["TMPDIR"]).rglob("*.sock") if path.is_socket()]


async def test_several_at_once_in_both_directions_do_not_get_each_others_streams() -> None:
    async def both(client: Any, name: str) -> None:
        async with client.broker.serve([Callback(name)]) as number:
            assert await ask(client, "call-back", number) == f"{name} heard from the plugin"
        async with inner_number(client, name) as number, client.broker.dial(number) as channel:
            assert (await EchoStub(channel).Unary(EchoRequest(text="x"))).text == f"{name}: x"

    with anyio.fail_after(20):
        async with make_shared() as client, anyio.create_task_group() as tg:
            for index in range(10):
                tg.start_soon(both, client, f"n{index}")


async def test_a_dial_that_is_cancelled_does_no_harm_to_the_next_one() -> None:
    with anyio.fail_after(20):
        async with make_shared() as client, inner_number(client, "for ever") as number:
            for delay in (0.0, 0.0005, 0.001, 0.002):
                with anyio.move_on_after(delay):
                    async with client.broker.dial(number):
                        pass
                assert await ask(client, "still here") == "still here"
                async with client.broker.dial(number) as channel:
                    reply = await EchoStub(channel).Unary(EchoRequest(text="x"))
                    assert reply.text == "for ever: x"


async def test_large_messages_and_many_calls_share_the_connection() -> None:
    with anyio.fail_after(25):
        async with make_shared() as client, inner_number(client, "inner") as number:
            async with client.broker.dial(number) as channel:
                for _ in range(3):
                    [reply] = await EchoStub(channel).Bidi([EchoRequest(text="x" * 3_000_000)])
                    assert len(reply.text) == 3_000_000

                async def some() -> None:
                    for _ in range(20):
                        assert await ask(client, "y") == "y"

                async with anyio.create_task_group() as tg:
                    for _ in range(10):
                        tg.start_soon(some)


async def test_a_plugin_that_is_killed_is_noticed() -> None:
    with anyio.fail_after(10):
        async with make_shared() as client:
            broker = client.broker
            await ask(client, "x")
            kill(client)
            await client.exited.wait()
            with pytest.raises(TransportError):
                async with broker.dial(1):
                    pass


async def test_an_address_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="not for an address"):
        await plugin_client(address="/tmp/x", multiplex_grpc=True).start()
