"""Starting, calling, replacing and stopping may be cancelled at every step; nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyvider_rpcplugin import PoolPolicy, RestartPolicy, RPCPluginClient, plugin_client
from pyvider_rpcplugin.exception import RPCPluginError
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.test_cancellation import Stepped, races

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

_MOST_STEPS = 200


async def swept(
    operation: Callable[[], Any], check: Callable[[], Awaitable[None]], *, racing: bool
) -> int:
    """Cancel `operation` at every step, and check after each; return how many steps there are.

    Each start of a plugin takes a while, so where there are many steps, later ones are chosen in
    growing distances.
    """
    step = 1
    while step < _MOST_STEPS:
        with anyio.fail_after(30):
            with anyio.CancelScope() as scope:
                stepped = Stepped(operation(), scope, step, racing=racing)
                await stepped
            await check()
        if stepped.done and not scope.cancel_called:
            return step
        step += 1 + step // 8
    pytest.fail("it never ends")


async def works(client: RPCPluginClient) -> None:
    """The client may be started, called and stopped."""
    async with client:
        assert (await client.stub(EchoStub).Unary(EchoRequest(text="x"))).text == "x"


CLIENTS: dict[str, dict[str, Any]] = {
    "client": {},
    "supervised": {"restart": RestartPolicy(initial_backoff=0.01)},
    "pool": {"pool": PoolPolicy(size=2)},
}
clients = pytest.mark.parametrize("kind", CLIENTS)


@races
@clients
async def test_starting_may_be_cancelled_at_every_step(kind: str, racing: bool) -> None:
    client = plugin_client(echo(), **CLIENTS[kind])

    async def operation() -> None:
        async with client:
            pass

    async def check() -> None:
        await client.stop()
        assert client.grpc_channel is None

    assert await swept(operation, check, racing=racing) > 1
    with anyio.fail_after(20):
        await works(client)


@races
@clients
async def test_stopping_may_be_cancelled_at_every_step_and_is_done_then(
    kind: str, racing: bool
) -> None:
    client = plugin_client(echo(), **CLIENTS[kind])
    step = 1
    done = False
    while not done:
        with anyio.fail_after(30):
            await client.start()
            with anyio.CancelScope() as scope:
                stepped = Stepped(client.stop(), scope, step, racing=racing)
                await stepped
            done = stepped.done and not scope.cancel_called
            assert client.grpc_channel is None
            assert client.exited.is_set()
        step += 1
    with anyio.fail_after(20):
        await works(client)


@races
@clients
async def test_a_call_may_be_cancelled_at_every_step(kind: str, racing: bool) -> None:
    with anyio.fail_after(60):
        async with plugin_client(echo(), **CLIENTS[kind]) as client:
            stub = client.stub(EchoStub, idempotent={"Unary"})
            pids = client.pids

            async def operation() -> None:
                await stub.Unary(EchoRequest(text="x", data=bytes(300_000)))

            async def check() -> None:
                assert (await stub.Unary(EchoRequest(text="y"))).text == "y"

            assert await swept(operation, check, racing=racing) > 1
            assert client.pids == pids


@races
async def test_a_lazy_start_may_be_cancelled_with_its_call_at_every_step(racing: bool) -> None:
    with anyio.fail_after(60):
        async with plugin_client(echo(), lazy=True) as client:
            stub = client.stub(EchoStub)

            async def operation() -> None:
                await stub.Unary(EchoRequest(text="x"))

            async def check() -> None:
                assert (await stub.Unary(EchoRequest(text="y"))).text == "y"
                assert len(client.pids) == 1

            assert await swept(operation, check, racing=racing) > 1


@races
async def test_reloading_may_be_cancelled_at_every_step(racing: bool) -> None:
    with anyio.fail_after(120):
        async with plugin_client(echo(), restart=RestartPolicy()) as client:
            stub = client.stub(EchoStub)

            async def check() -> None:
                assert (await stub.Unary(EchoRequest(text="y"))).text == "y"
                assert len(client.pids) == 1

            async def operation() -> None:
                await client.reload()

            assert await swept(operation, check, racing=racing) > 1
            first = client.pid
            await client.reload()
            assert client.pid != first
            await check()


@races
async def test_detaching_may_be_cancelled_at_every_step(racing: bool) -> None:
    step = 1
    done = False
    while not done:
        with anyio.fail_after(30):
            client = plugin_client(echo(), outlive_host=True)
            await client.start()
            record = client.reattach_config()
            with anyio.CancelScope() as scope:
                stepped = Stepped(client.detach(), scope, step, racing=racing)
                await stepped
            done = stepped.done and not scope.cancel_called
            # Whether it was let go or not, it is reached again, and ended.
            await client.stop()
            again = plugin_client(reattach=record)
            try:
                await again.start()
            except RPCPluginError:
                assert client.exit is not None
            else:
                assert (await again.stub(EchoStub).Unary(EchoRequest(text="z"))).text == "z"
                await again.stop()
        step += 1
