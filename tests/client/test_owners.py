"""Who owns what a client starts: blocks left in any order, task groups, and nobody at all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import anyio
import pytest
import sniffio
import trio

from pyvider_rpcplugin import ConfigError, PluginHost, RPCPluginError, plugin_client, plugin_server
from tests.plugins import broken, echo
from tests.plugins.echo_plugin import Echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

ROOT = str(Path(__file__).parents[2])


async def test_start_is_awaited_or_entered() -> None:
    with anyio.fail_after(10):
        client = plugin_client(echo())
        async with client.start() as same:
            assert same is client
            await client.ping()
        assert client.grpc_channel is None
        await client.start()
        async with client.stop():
            pass
        assert client.grpc_channel is None
        await client.close()


async def test_two_clients_through_two_exit_stacks_closed_oldest_first() -> None:
    with anyio.fail_after(10):
        first, second = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        one = await first.enter_async_context(plugin_client(echo()))
        two = await second.enter_async_context(plugin_client(echo()))
        await first.aclose()
        assert one.grpc_channel is None
        await two.ping()
        await second.aclose()
    assert one.exit == two.exit
    assert one.exit is not None
    assert one.exit.status == 0


async def test_a_client_entered_in_one_task_is_closed_from_another() -> None:
    client = plugin_client(echo())
    with anyio.fail_after(10):
        await client.__aenter__()
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.__aexit__, None, None, None)
        assert client.exited.is_set()


async def test_a_plugins_death_does_not_cancel_the_body() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)
            await client.exited.wait()
            await anyio.wait_all_tasks_blocked()
            await anyio.lowlevel.checkpoint()


async def test_cancelling_the_block_passes_bare_and_ends_the_plugin() -> None:
    client = plugin_client(echo())
    with anyio.fail_after(10):
        with anyio.CancelScope() as scope:
            async with client:
                scope.cancel()
                await anyio.sleep(10)
        assert scope.cancelled_caught
        assert client.exited.is_set()


async def test_a_group_that_the_body_raises_stays_as_it_is() -> None:
    with anyio.fail_after(10):
        with pytest.raises(ExceptionGroup) as caught:
            async with plugin_client(echo()):
                raise ExceptionGroup("mine", [ValueError("a")])
        assert caught.value.message == "mine"


async def test_a_client_lives_in_a_task_group_of_the_callers() -> None:
    client = plugin_client(echo())
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tg:
            await client.start(task_group=tg)
            await client.ping()
            tg.cancel_scope.cancel()
        assert client.exited.is_set()
        await client.stop()
        async with anyio.create_task_group() as tg:
            await client.start(task_group=tg)
            await client.stop()
            assert not tg.cancel_scope.cancel_called


async def test_a_failed_start_does_not_end_the_task_group() -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tg:
            with pytest.raises(RPCPluginError):
                await plugin_client(broken("exits")).start(task_group=tg)
            assert not tg.cancel_scope.cancel_called


async def test_a_host_starts_and_stops_in_any_order() -> None:
    with anyio.fail_after(15):
        async with PluginHost() as host:
            one = await host.start(echo())
            two = await host.start(plugin_client(echo()))
            async with host.start(echo(), auto_mtls=False) as three:
                assert list(host.clients) == [one, two, three]
            await one.stop()
            assert list(host.clients) == [two]
            await two.ping()
            with pytest.raises(ConfigError, match="no further settings"):
                await host.start(one, env={"A": "1"})
        assert two.exited.is_set()
        with pytest.raises(RPCPluginError, match="not open"):
            await host.start(echo())


async def test_a_hosts_block_raises_bare_and_ends_its_plugins() -> None:
    with anyio.fail_after(15):
        with pytest.raises(ZeroDivisionError):
            async with PluginHost() as host:
                client = await host.start(echo())
                raise ZeroDivisionError
    assert client.exit is not None
    assert client.exit.status == 0


async def test_a_host_that_ends_while_a_plugin_starts_ends_that_too() -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tg:
            async with PluginHost() as host:
                client = plugin_client(broken("silent"))

                async def start() -> None:
                    with pytest.raises(RPCPluginError, match="stopped before"):
                        await host.start(client)

                tg.start_soon(start)
                while client.pid is None:
                    await anyio.lowlevel.checkpoint()


async def test_a_forgotten_client_warns_and_its_plugin_ends() -> None:
    with anyio.fail_after(10):
        client = plugin_client(echo())
        await client.start()
        exited = client.exited
        with pytest.warns(ResourceWarning, match="forgotten while its plugin was running"):
            del client
            gc.collect()
        await exited.wait()
        # The session ends a moment after the plugin.
        await anyio.wait_all_tasks_blocked()


async def test_a_stub_keeps_its_client_from_being_forgotten() -> None:
    with anyio.fail_after(10):
        client = plugin_client(echo())
        await client.start()
        stub = client.stub(EchoStub)
        stop = client.stop
        del client
        gc.collect()
        assert (await stub.Unary(EchoRequest(text="x"))).text == "x"
        await stop()


def test_a_forgotten_await_warns() -> None:
    client = plugin_client(echo())
    with pytest.warns(RuntimeWarning, match="start\\(\\) was never awaited"):
        client.start()  # type: ignore[unused-awaitable]
        gc.collect()


async def test_the_session_is_a_task_that_bears_the_plugins_name() -> None:
    def names() -> set[str]:
        if sniffio.current_async_library() == "asyncio":
            return {task.get_name() for task in asyncio.all_tasks()}
        root = trio.lowlevel.current_root_task()
        assert root is not None
        return {
            task.name
            for nursery in root.child_nurseries
            for inner in (nursery, *(n for t in nursery.child_tasks for n in t.child_nurseries))
            for task in inner.child_tasks
        }

    with anyio.fail_after(10):
        async with plugin_client(echo()):
            assert "plugin session echo_plugin" in names()
        assert "plugin session echo_plugin" not in names()


FORGOTTEN = """
import {loop}, os, signal, sys, warnings
sys.path[:0] = {path!r}
import anyio
from pyvider_rpcplugin import plugin_client
warnings.simplefilter("always")

async def main():
    global client
    client = plugin_client({command!r})
    await client.start()
    print(client.pid, flush=True)
    {how}

try:
    {run}
except BaseException as exc:
    print(type(exc).__name__, flush=True)
print(client.exit.status)
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("return", []),
        ("raise ValueError", ["ValueError"]),
        (
            "signal.raise_signal(signal.SIGINT); await anyio.sleep(5)",
            ["KeyboardInterrupt"],
        ),
    ],
    ids=["return", "exception", "ctrl-c"],
)
def test_a_forgotten_stop_ends_the_plugin_with_the_loop_and_warns(
    loop: str, how: str, outcome: list[str]
) -> None:
    run = {"asyncio": "asyncio.run(main())", "trio": "trio.run(main)"}[loop]
    script = FORGOTTEN.format(loop=loop, run=run, how=how, path=[ROOT], command=echo())
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    pid, *rest = result.stdout.split()
    assert rest[:-1] == outcome, result.stderr
    # SIGTERM is what a plugin gets from a host that has no time left; it drains, and ends well.
    assert rest[-1] in {"0", "-15"}
    assert not os.path.exists(f"/proc/{pid}")
    assert "ResourceWarning: plugin session echo_plugin was still running" in result.stderr
    assert "Traceback" not in result.stderr, result.stderr


CTRL_C = """
import {loop}, signal, sys, warnings
sys.path[:0] = {path!r}
import anyio
from pyvider_rpcplugin import plugin_client
warnings.simplefilter("error")
client = plugin_client({command!r})

async def main():
    async with client:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep(5)

try:
    {run}
except KeyboardInterrupt:
    print(client.exit.status)
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_ctrl_c_inside_a_block_ends_the_plugin_politely(loop: str) -> None:
    run = {"asyncio": "asyncio.run(main())", "trio": "trio.run(main)"}[loop]
    script = CTRL_C.format(loop=loop, run=run, path=[ROOT], command=echo())
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_a_killed_host_takes_its_plugin_with_it() -> None:
    script = FORGOTTEN.format(
        loop="asyncio",
        run="asyncio.run(main())",
        how="await anyio.sleep(60)",
        path=[ROOT],
        command=["sh", "-c", 'unset X; "$@" & wait', "sh", *echo()],
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        host.stdout.readline()
        host.kill()
    # That the orphan is gone, is what the check after each test sees. What the host itself could
    # not remove, the next one does.

    async def next_host() -> None:
        async with plugin_client(echo()):
            pass

    anyio.run(next_host)


async def test_an_attached_client_outlives_nothing_and_starts_nothing() -> None:
    server = plugin_server(handler=Echo(), standalone=True, transport="tcp")
    with anyio.fail_after(10):
        async with server.serve() as address, plugin_client(address=address) as client:
            assert (await client.stub(EchoStub).Unary(EchoRequest(text="x"))).text == "x"
            assert client.pid is None
            assert client.exit is None
        server = plugin_server(handler=Echo(), standalone=True, transport="unix")
        async with server.serve() as address:
            async with plugin_client(address=address) as client:
                await client.ping()
            # The server serves on.
            async with plugin_client(address=address) as client:
                await client.ping()


def test_a_client_that_was_never_started_is_quiet() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugin_client(echo())
        gc.collect()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_lives_in_a_task_group_of_asyncios() -> None:
    client = plugin_client(echo())
    async with asyncio.timeout(10):
        async with asyncio.TaskGroup() as tg:
            await client.start(task_group=tg)
            await client.ping()
            await client.stop()
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as tg:
                await client.start(task_group=tg)
                raise ZeroDivisionError
        assert client.exited.is_set()


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_client_lives_in_a_nursery_of_trios() -> None:
    client = plugin_client(echo())
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await client.start(task_group=nursery)
            await client.ping()
            nursery.cancel_scope.cancel()
        assert client.exited.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_own_cancellation_ends_what_was_started() -> None:
    starting = plugin_client(broken("silent"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(starting.start(), 0.3)
    assert starting.grpc_channel is None

    client = plugin_client(echo())
    entered = asyncio.Event()

    async def use() -> None:
        async with client:
            entered.set()
            await asyncio.sleep(60)

    async with asyncio.timeout(10):
        task = asyncio.create_task(use())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.exit is not None
        assert client.exit.status == 0

        await client.start()
        stopping = asyncio.create_task(client.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert client.exit.status == 0
        assert client.grpc_channel is None
