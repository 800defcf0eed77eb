"""How a host learns that its plugin has ended."""

from __future__ import annotations

import os
import signal
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import (
    HandshakeError,
    PluginExit,
    RPCPluginError,
    TransportError,
    plugin_client,
    plugin_server,
)
from pyvider_rpcplugin.rpc import DeadlineExceeded
from tests.plugins import broken, echo
from tests.plugins.echo_plugin import Echo

pytestmark = pytest.mark.process


def end(client: Any, number: int = signal.SIGKILL) -> None:
    os.kill(client.pid, number)


async def test_the_end_of_a_plugin_can_be_waited_for() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            ends: list[PluginExit] = []

            async def wait() -> None:
                ends.append(await client.wait())

            async with anyio.create_task_group() as tg:
                tg.start_soon(wait)
                tg.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                assert not client.exited.is_set()
                end(client)
            assert [one.status for one in ends] == [-9, -9]
            assert client.exited.is_set()
        assert (await client.wait()).status == -9


async def test_whoever_waits_learns_of_the_stop() -> None:
    with anyio.fail_after(10):
        client = plugin_client(echo())
        await client.start()
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.wait)
            await anyio.wait_all_tasks_blocked()
            await client.stop()
        assert (await client.wait()).status == 0
        assert client.exited.is_set()
        await client.start()
        assert not client.exited.is_set()
        assert client.exit is None
        await client.stop()


async def test_waiting_can_be_given_up() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            with anyio.move_on_after(0.01):
                await client.wait()
            await client.ping()


async def test_there_is_nothing_to_wait_for_without_a_plugin() -> None:
    with anyio.fail_after(10):
        with pytest.raises(RPCPluginError, match="was not started"):
            await plugin_client(echo()).wait()
        async with plugin_server(handler=Echo(), standalone=True, transport="tcp").serve() as at:
            async with plugin_client(address=at) as client:
                with pytest.raises(RPCPluginError, match="not started by a host"):
                    await client.wait()
            assert not client.exited.is_set()


@pytest.mark.parametrize("mode", ["exits", "malformed", "silent"])
async def test_a_start_that_failed_is_an_end_too(mode: str) -> None:
    # The others have to get as far as their line, or their exit.
    limit = 0.3 if mode == "silent" else 60
    client = plugin_client(broken(mode), handshake_timeout=limit, client_retry_enabled=False)
    with anyio.fail_after(10):
        with pytest.raises(HandshakeError):
            await client.start()
        assert client.exited.is_set()
        assert client.exit is not None
        assert (await client.wait()).status == (3 if mode == "exits" else -15)


async def test_a_program_that_is_not_there_has_ended_without_an_exit() -> None:
    client = plugin_client(["/nowhere/at/all"])
    with anyio.fail_after(5):
        with pytest.raises(TransportError):
            await client.start()
        assert client.exited.is_set()
        assert client.exit is None
        with pytest.raises(RPCPluginError, match="was not started"):
            await client.wait()


@pytest.mark.parametrize("awaits", [False, True])
async def test_a_callback_is_told_once_how_the_plugin_ended(awaits: bool) -> None:
    ends: list[PluginExit] = []

    async def later(exit_: PluginExit) -> None:
        await anyio.lowlevel.checkpoint()
        ends.append(exit_)

    on_exit: Any = later if awaits else ends.append
    with anyio.fail_after(10):
        client = plugin_client(echo(), on_exit=on_exit)
        async with client:
            end(client)
            await client.wait()
        assert [one.status for one in ends] == [-9]
        async with client:
            pass
        assert [one.status for one in ends] == [-9, 0]


async def test_a_callback_is_told_when_its_owner_is_cancelled() -> None:
    ends: list[PluginExit] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tg:
            await plugin_client(echo(), on_exit=ends.append).start(task_group=tg)
            tg.cancel_scope.cancel()
    assert len(ends) == 1


async def test_a_start_that_fails_is_no_matter_of_the_callback() -> None:
    ends: list[PluginExit] = []
    with anyio.fail_after(5), pytest.raises(HandshakeError):
        await plugin_client(broken("exits"), on_exit=ends.append).start()
    assert ends == []


async def test_what_a_callback_does_wrong_is_logged(caplog: Any) -> None:
    def fail(exit_: PluginExit) -> None:
        raise ZeroDivisionError

    with anyio.fail_after(10):
        async with plugin_client(echo(), on_exit=fail) as client:
            end(client)
            await client.wait()
    assert "on_exit of plugin echo_plugin failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_callback_that_hangs_is_cancelled(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("pyvider_rpcplugin.client._launch.ON_EXIT_LIMIT", 0.05)
    cancelled = anyio.Event()

    async def hang(exit_: PluginExit) -> None:
        try:
            await anyio.Event().wait()
        finally:
            cancelled.set()

    with anyio.fail_after(10):
        async with plugin_client(echo(), on_exit=hang):
            pass
    assert cancelled.is_set()
    assert "took over" in caplog.text


async def test_a_ping_ends_in_time_though_the_plugin_is_stopped() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            end(client, signal.SIGSTOP)
            try:
                with pytest.raises(DeadlineExceeded):
                    await client.ping(timeout=0.05)
            finally:
                end(client, signal.SIGCONT)
            await client.ping()
