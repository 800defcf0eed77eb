"""Those that connect and say nothing, and those that connect too often."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
import pytest
from anyio import lowlevel

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.rpc._admission import _MOST_FAREWELLS
from pyvider_rpcplugin.transport import transport_for
from pyvider_rpcplugin.transport.memory import MemoryStream
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo
from tests.rpc.test_connection import virtual_time

from .support import field, until_calmed, warnings_in

FEW = RPCOptions(max_connections=4)

pytestmark = pytest.mark.net


@pytest.mark.parametrize("link", ["unix", "tcp"])
async def test_those_that_say_nothing_keep_nobody_out(
    link: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = anyio.current_time()
    async with field(options=FEW, link=link) as here, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(here.attacker())
        while len(here.server._connections) < 4:
            await lowlevel.checkpoint()
        first, *_ = sorted(here.server._connections, key=lambda one: one.number)[1:]
        for _ in range(20):
            await stack.enter_async_context(here.attacker())
            await anyio.wait_all_tasks_blocked()
            assert len(here.server._connections) <= 4
        assert first not in here.server._connections
        transport = transport_for(link, here.address)
        async with open_channel(Channel(transport.connect)) as another:
            await EchoStub(another).Unary(EchoRequest())
        await here.check_undisturbed()
    # One a second, however many there were.
    assert 1 <= len(warnings_in(caplog)) <= 2 + anyio.current_time() - began


@pytest.mark.parametrize("link", ["unix", "tcp"])
async def test_who_is_one_too_many_is_told_so(link: str, caplog: pytest.LogCaptureFixture) -> None:
    async with field(options=FEW, link=link) as here, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(here.speaker())
        for _ in range(3):
            async with here.speaker() as peer:
                assert "too many connections" in await until_calmed(peer)
        assert len(here.server._connections) == 4
        with pytest.raises(TransportError, match="the server ended"):
            transport = transport_for(link, here.address)
            async with open_channel(Channel(transport.connect)) as another:
                await EchoStub(another).Unary(EchoRequest())
    assert "limit=4" in warnings_in(caplog)[0]


@virtual_time
@pytest.mark.parametrize("words", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_who_never_speaks_or_drop_by_drop_is_dropped_when_its_time_is_over(
    words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server([Echo()], options=RPCOptions(settings_timeout=30))
    ours, theirs = MemoryStream.pair()
    async with anyio.create_task_group() as tasks, theirs:
        began = anyio.current_time()
        tasks.start_soon(server.serve_stream, ours)
        for octet in words:
            await anyio.sleep(1)
            await theirs.send(bytes([octet]))
        with pytest.raises(anyio.EndOfStream):
            while True:
                await theirs.receive()
        assert anyio.current_time() - began == pytest.approx(30, abs=1.5)
    assert "rpc.connection.silent" in warnings_in(caplog)[0]


async def test_place_that_is_left_is_given_to_the_next() -> None:
    async with field(options=FEW) as here, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(here.speaker())
        for _ in range(5):
            async with here.speaker():
                pass
            while len(here.server._connections) > 3:
                await lowlevel.checkpoint()


async def test_those_that_are_turned_away_and_stay_cost_no_more_than_a_few() -> None:
    async with field(options=FEW) as here, AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(here.speaker())
        for _ in range(3 * _MOST_FAREWELLS):
            await stack.enter_async_context(here.attacker())
            await anyio.wait_all_tasks_blocked()
            assert here.server.admission._farewells <= _MOST_FAREWELLS
        await here.check_undisturbed()
