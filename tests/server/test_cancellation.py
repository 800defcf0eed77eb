"""Serving and stopping may be cancelled at every step; nothing is left, and it serves again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from pyvider_rpcplugin import plugin_client, plugin_server
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo
from tests.rpc.test_cancellation import Stepped, races, sweep

if TYPE_CHECKING:
    from pyvider_rpcplugin import RPCPluginServer

pytestmark = pytest.mark.net


async def works(server: RPCPluginServer) -> None:
    """It serves, is called, and stops."""
    async with server.serve() as address, plugin_client(address=address) as client:
        assert (await client.stub(EchoStub).Unary(EchoRequest(text="x"))).text == "x"


def standalone() -> RPCPluginServer:
    return plugin_server(handler=Echo(), standalone=True, grpc_grace_period=0.05)


@races
async def test_serving_may_be_cancelled_at_every_step(racing: bool) -> None:
    server = standalone()

    async def operation() -> None:
        async with server.serve() as address:
            async with plugin_client(address=address) as client:
                await client.stub(EchoStub).Unary(EchoRequest(text="x"))

    async def check() -> None:
        with anyio.fail_after(5):
            await works(server)

    with anyio.fail_after(25):
        assert await sweep(operation, check, racing=racing) > 3


@races
async def test_stopping_may_be_cancelled_at_every_step_and_is_done_then(racing: bool) -> None:
    server = standalone()
    step, done = 1, False
    while not done:
        with anyio.fail_after(10):
            async with server.serve() as address, plugin_client(address=address) as client:
                await client.stub(EchoStub).Unary(EchoRequest(text="x"))
                with anyio.CancelScope() as scope:
                    stepped = Stepped(server.stop(), scope, step, racing=racing)
                    await stepped
                done = stepped.done and not scope.cancel_called
            await works(server)
        step += 1
    assert step > 1
