"""A host that forks, and calls from other threads and loops than the one that a client is of."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio

from pyvider_rpcplugin import RPCPluginError, plugin_client, plugin_server
from pyvider_rpcplugin.rpc import Channel, open_channel
from pyvider_rpcplugin.transport import transport_for
from tests.plugins import FOLDER
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo

from .support import field

pytestmark = pytest.mark.process

ECHO = [sys.executable, str(FOLDER / "echo_plugin.py")]


def in_fork(function: Callable[[], object]) -> str:
    """Call `function` in a process that is forked off; return what it returns, or raises."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are other threads
        pid = os.fork()
    if pid == 0:
        try:
            try:
                said = str(function())
            except BaseException as exc:  # whatever it is, pytest must not go on here
                said = f"{type(exc).__name__}: {exc}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


async def call(channel: Any) -> str:
    return (await EchoStub(channel).Unary(EchoRequest(text="x"))).text


def step(coroutine: Any) -> Any:
    """What a coroutine does before it first waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    finally:
        coroutine.close()
    return "it waits"


@pytest.mark.parametrize("link", ["unix", "tcp"])
async def test_forked_process_is_told_and_the_connection_goes_on(link: str) -> None:
    async with field(link=link) as here:
        said = in_fork(lambda: step(call(here.channel)))
        assert said.startswith("RPCPluginError: the channel belongs to the process that this one")
        # In a loop of the child's own, it is the same.
        for run in (asyncio.run, lambda coroutine: trio.run(lambda: coroutine)):
            said = in_fork(lambda run=run: run(call(here.channel)))  # type: ignore[misc]
            assert "RPCPluginError" in said or "RuntimeError" in said
        await here.check_undisturbed()


async def test_forked_process_has_no_copies_of_sockets() -> None:
    async with field() as here:
        (connection,) = here.channel._connections
        assert in_fork(lambda: connection.stream) == "<SocketStream closed>"
        # So the other end notices at once when the parent goes, whatever the child does.
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        transport = transport_for("unix", here.address)
        async with open_channel(Channel(transport.connect)) as another:
            await call(another)
            assert len(here.server._connections) == 2
        with anyio.fail_after(5):
            while len(here.server._connections) > 1:
                await anyio.lowlevel.checkpoint()
        os.close(writing)
        await anyio.to_thread.run_sync(os.waitpid, pid, 0)


HOST = """
    import asyncio, gc, multiprocessing, os, sys, warnings
    import anyio
    from pyvider_rpcplugin import RPCPluginError, plugin_client
    from tests.protos.echo_grpc import EchoStub
    from tests.protos.echo_pb2 import EchoRequest

    warnings.simplefilter("ignore", DeprecationWarning)
    clients = []

    def work():
        try:
            asyncio.run(call())
        except RPCPluginError as exc:
            said = exc.message
        # What finalizers do, they do here.
        clients.clear()
        gc.collect()
        sys.exit(7 if "forked from" in said else 8)

    async def call():
        await EchoStub(clients[0].grpc_channel).Unary(EchoRequest())

    async def main():
        client = plugin_client({command!r})
        clients.append(client)
        async with client:
            stub = EchoStub(client.grpc_channel)
            await stub.Unary(EchoRequest(text="before"))
            path = client.reattach_config().address
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            await anyio.to_thread.run_sync(process.join)
            assert os.path.exists(path)
            reply = await stub.Unary(EchoRequest(text="after"))
            assert client.exit is None
            print(process.exitcode, reply.text)
        assert not os.path.exists(path)

    anyio.run(main, backend={backend!r})
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_worker_of_multiprocessing_leaves_the_plugin_and_its_socket_to_its_parent(
    backend: str,
) -> None:
    script = textwrap.dedent(HOST).format(command=ECHO, backend=backend)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout.split() == ["7", "after"], done.stderr
    assert done.returncode == 0


async def test_other_thread_is_told_and_the_connection_goes_on() -> None:
    async with field() as here:
        said: list[str] = []

        def elsewhere(run: Any) -> None:
            try:
                said.append(run(lambda: call(here.channel)))
            except RPCPluginError as exc:
                said.append(exc.message)

        for run in (lambda f: asyncio.run(f()), trio.run, lambda f: step(f())):
            thread = threading.Thread(target=elsewhere, args=(run,))
            thread.start()
            await anyio.to_thread.run_sync(thread.join)
        assert said == ["the channel was started on another event loop"] * 3
        # The way to do it.
        assert await anyio.to_thread.run_sync(anyio.from_thread.run, call, here.channel) == "x"


async def test_other_tree_of_tasks_is_as_good_as_any() -> None:
    async with field() as here:
        done: list[str] = []

        async def use() -> None:
            done.append(await call(here.channel))

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            trio.lowlevel.spawn_system_task(use)
        else:
            task = asyncio.get_running_loop().create_task(use())
            await asyncio.wait([task])
        while not done:
            await anyio.lowlevel.checkpoint()


async def test_server_is_stopped_where_it_serves() -> None:
    server = plugin_server(handler=Echo(), standalone=True)
    async with server.serve():
        refused: list[str] = []

        async def stop() -> None:
            await server.stop()

        def elsewhere() -> None:
            for run in (asyncio.run, lambda coroutine: trio.run(lambda: coroutine)):
                try:
                    run(stop())
                except RPCPluginError as exc:
                    refused.append(exc.message)

        await anyio.to_thread.run_sync(elsewhere)
        assert len(refused) == 2
        assert "belongs to the process" in in_fork(lambda: step(stop()))
    # What has ended can be asked to end from anywhere.
    await anyio.to_thread.run_sync(elsewhere)
    assert len(refused) == 2


async def test_client_is_stopped_where_it_was_started() -> None:
    client = plugin_client(ECHO)
    await client.start()
    try:
        refused: list[str] = []

        def elsewhere() -> None:
            for run in (asyncio.run, lambda coroutine: trio.run(lambda: coroutine)):
                try:
                    run(stop())
                except RPCPluginError as exc:
                    refused.append(exc.message)

        async def stop() -> None:
            await client.stop()

        await anyio.to_thread.run_sync(elsewhere)
        assert len(refused) == 2
        assert all("started on another event loop" in message for message in refused)
        assert "belongs to the process" in in_fork(lambda: step(stop()))
        assert await call(client.grpc_channel) == "x"
    finally:
        await client.stop()
