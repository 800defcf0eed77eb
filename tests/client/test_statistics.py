"""What clients, channels and servers say of what they have done."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import RemoteError, RPCPluginError, plugin_client, plugin_server
from pyvider_rpcplugin.client.supervision import PoolPolicy, RestartPolicy
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import broken, echo
from tests.plugins.counter_plugin import Counter
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COUNTER = [sys.executable, "tests/plugins/counter_plugin.py"]


async def numbers() -> AsyncIterator[int]:
    for number in (1, 2, 3):
        yield number


async def call_all(counter: Any) -> None:
    """Seven calls: five of them go well."""
    assert await counter.add(1) == 1
    assert [one async for one in counter.count(2)] == [2, 1]
    assert await counter.total(numbers()) == 6
    assert [one async for one in counter.doubled(numbers())] == [2, 4, 6]
    with pytest.raises((RemoteError, LookupError)):
        await counter.fail()
    async with counter.count(3, hang=True) as left:
        async for _ in left:
            break
    assert await counter.add(2) == 2


@pytest.mark.process
async def test_a_client_counts_its_calls_by_how_they_ended() -> None:
    before = time.time()
    client = plugin_client(COUNTER)
    assert client.statistics().starts == 0
    with anyio.fail_after(10):
        async with client:
            await call_all(client.proxy(Counter))
            await client.ping()
            seen = client.statistics()
            assert (seen.calls_started, seen.calls_succeeded, seen.calls_open) == (7, 5, 0)
            assert seen.calls_failed == {"UNKNOWN": 1, "CANCELLED": 1}
            assert (seen.starts, seen.failed_starts, seen.exits, seen.restarts) == (1, 0, 0, 0)
            assert (seen.name, seen.pid, seen.connections) == ("counter_plugin", client.pid, 1)
            assert before <= (seen.started_at or 0) <= time.time()
            assert (seen.start_seconds or 0) > 0
            assert min(seen.bytes_sent, seen.bytes_received) > 100
            [plugin] = seen.plugins
            assert plugin.calls_sent >= 8
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.proxy(Counter).hang)
                await anyio.wait_all_tasks_blocked()
                assert client.statistics().calls_open == 1
                assert client.statistics().plugins[0].calls_open == 1
                tg.cancel_scope.cancel()
            assert client.statistics().calls_failed["CANCELLED"] == 2
    over = client.statistics()
    assert (over.starts, over.exits, over.plugins, over.calls_started) == (1, 0, (), 0)
    assert seen.calls_started == 7  # It does not change.


async def test_a_server_counts_likewise_and_those_that_it_refused() -> None:
    server = plugin_server(handler=Counter(), standalone=True, transport="tcp")
    assert server.statistics().started_at is None
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            await call_all(client.proxy(Counter))
            with pytest.raises(GRPCError):
                await client.stub(EchoStub).Unary(EchoRequest(text=""))
            await anyio.wait_all_tasks_blocked()
            seen = server.statistics()
            assert (seen.calls_started, seen.calls_succeeded, seen.calls_open) == (8, 5, 0)
            assert seen.calls_failed == {"UNKNOWN": 1, "CANCELLED": 1, "UNIMPLEMENTED": 1}
            assert (seen.connections, seen.connections_accepted) == (1, 1)
            assert (seen.address, seen.pid) == (address, os.getpid())
            assert min(seen.bytes_sent, seen.bytes_received) > 100
            assert client.statistics().plugins[0].pid is None


@pytest.mark.process
async def test_all_kinds_of_stubs_are_counted() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            grpclib = client.stub(EchoStub)
            await grpclib.Unary(EchoRequest(text="one"))
            async with grpclib.Unary.open() as stream:
                await stream.send_message(EchoRequest(text="two"), end=True)
                await stream.recv_message()
            assert client.grpc_channel is not None
            eager = client.grpc_channel.unary_unary("/testing.echo.Echo/Nothing")
            with pytest.raises(Exception, match="UNIMPLEMENTED"):
                await eager(b"")
            seen = client.grpc_channel.statistics()
            assert (seen.calls_started, seen.calls_succeeded) == (3, 2)
            assert seen.calls_failed == {"UNIMPLEMENTED": 1}
            assert client.statistics().calls_started == 3


@pytest.mark.process
def test_a_blocking_client_counts_the_calls_of_its_threads() -> None:
    with plugin_client_sync(echo()) as client:
        stub = client.stub(EchoStub)
        assert stub.Unary(EchoRequest(text="one")).text == "one"
        with pytest.raises(GRPCError):
            stub.Unary(EchoRequest(text="hang"), timeout=0.01)
        client.ping()
        seen = client.statistics()
        assert (seen.calls_started, seen.calls_succeeded, seen.calls_open) == (2, 1, 0)
        assert seen.calls_failed == {"DEADLINE_EXCEEDED": 1}
        assert (seen.connections, seen.starts) == (2, 1)
    assert client.statistics().starts == 1


@pytest.mark.process
async def test_calls_that_never_began_are_failures() -> None:
    with anyio.fail_after(10):
        async with plugin_client(COUNTER) as client:
            counter = client.proxy(Counter)
            os.kill(client.pid or 0, signal.SIGKILL)
            await client.exited.wait()
            for _ in range(2):
                with pytest.raises(GRPCError):
                    await counter.add(1)
            seen = client.statistics()
            assert (seen.calls_started, seen.calls_failed) == (2, {"UNAVAILABLE": 2})
            assert (seen.starts, seen.exits) == (1, 1)


@pytest.mark.process
async def test_a_pool_counts_its_restarts_and_each_of_its_plugins() -> None:
    soon = RestartPolicy(initial_backoff=0.01, max_backoff=0.01)
    client = plugin_client(COUNTER, restart=soon, pool=PoolPolicy(size=2))
    with anyio.fail_after(15):
        async with client, client.events() as events:
            counter = client.proxy(Counter)
            for number in range(4):
                await counter.add(number)
            first = client.statistics()
            assert (first.calls_succeeded, first.starts, first.connections) == (4, 2, 2)
            assert {one.pid for one in first.plugins} == set(client.pids)
            os.kill(client.pid or 0, signal.SIGKILL)
            async for event in events:
                if event.kind == "started":
                    break
            await counter.add(5)
            seen = client.statistics()
            assert (seen.starts, seen.exits, seen.restarts) == (3, 1, 1)
            assert seen.calls_succeeded == 5
            assert seen.bytes_sent >= first.bytes_sent


@pytest.mark.process
async def test_what_happens_to_a_plugin_is_logged_under_names_that_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    soon = RestartPolicy(initial_backoff=0.01, max_backoff=0.01)
    with anyio.fail_after(15):
        client = plugin_client(COUNTER, restart=soon, log_level="DEBUG")
        async with client, client.events() as events:
            first = client.pid
            os.kill(first or 0, signal.SIGKILL)
            async for event in events:
                if event.kind == "started":
                    break
        with pytest.raises(RPCPluginError):
            await plugin_client(broken("exits"), log_level="DEBUG").start()
    found: dict[str, Any] = {}
    for record in caplog.records:
        name: str = getattr(record, "event", "")
        if name.startswith("plugin."):
            found.setdefault(name, record)
            assert record.name.startswith("pyvider_rpcplugin.plugin.")
    assert set(found) == {
        "plugin.started",
        "plugin.exited",
        "plugin.restarting",
        "plugin.stopped",
        "plugin.start_failed",
    }
    assert found["plugin.started"].plugin == "counter_plugin"
    assert found["plugin.started"].pid == first
    assert found["plugin.started"].start_seconds > 0
    assert found["plugin.exited"].status == -signal.SIGKILL
    assert found["plugin.exited"].levelname == "WARNING"
    assert found["plugin.restarting"].reason == "was killed by SIGKILL"
    assert found["plugin.start_failed"].phase == "handshake"
