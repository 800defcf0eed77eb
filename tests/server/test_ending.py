"""Who is told that a server is about to end, and what they may do about it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from pyvider_rpcplugin import ConfigError, RPCPluginClient, plugin_client, plugin_server
from tests.plugins import FOLDER
from tests.plugins.ending_plugin import Patient, wait
from tests.plugins.misc_plugin import Misc, Text


async def stopped(client: RPCPluginClient) -> None:
    await client.stop()


async def signalled(client: RPCPluginClient) -> None:
    assert client.pid is not None
    os.kill(client.pid, signal.SIGTERM)


@pytest.mark.process
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("end", [stopped, signalled])
async def test_a_plugin_is_told_while_its_calls_still_run(
    loop: str,
    end: Callable[[RPCPluginClient], Coroutine[Any, Any, None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    printed: list[bytes] = []
    client = plugin_client(
        [sys.executable, str(FOLDER / "ending_plugin.py"), loop],
        sync_stdout=printed.append,
        grpc_grace_period=60,
    )
    # The grace period is a minute: if it were not told, the call would go on for that long.
    with anyio.fail_after(10):
        async with client:
            exited = client.exited
            async with wait(client.grpc_channel) as stream, anyio.create_task_group() as tg:
                await stream.send_message(Text(), end=True)
                assert (await stream.recv_message()).text == "waiting"
                tg.start_soon(end, client)
                assert (await stream.recv_message()).text == "ending"
                assert await stream.recv_message() is None
            await exited.wait()
    assert client.exit is not None
    assert client.exit.status == 0
    assert b"".join(printed) == b"first\nlast\n"
    [failure] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "on_shutdown" in failure.getMessage()
    assert "told so" in caplog.text


@pytest.mark.net
async def test_they_are_called_in_order_and_what_they_raise_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    async def fail_later() -> None:
        told.append("later")
        await anyio.lowlevel.checkpoint()
        raise ValueError("as it must")

    def fail_now() -> None:
        told.append("now")
        raise KeyError("likewise")

    server = plugin_server(
        handler=Misc(),
        standalone=True,
        on_shutdown=(fail_now, lambda: told.append("third"), fail_later),
    )
    with anyio.fail_after(5):
        for _ in range(2):  # each time that it serves
            async with server.serve():
                assert told == []
            assert told == ["now", "third", "later"]
            told.clear()
    failures = [record.exc_info for record in caplog.records if record.levelno == logging.ERROR]
    assert [type(info[1]) for info in failures if info] == [KeyError, ValueError] * 2


@pytest.mark.net
async def test_what_takes_longer_than_the_grace_period_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cancelled = anyio.Event()

    async def for_ever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    server = plugin_server(handler=Misc(), standalone=True, on_shutdown=for_ever)
    with anyio.fail_after(5):
        async with server.serve():
            await server.stop(0.01)
    assert cancelled.is_set()
    assert "on_shutdown: not over after 0.01 seconds" in caplog.text


@pytest.mark.net
async def test_a_server_whose_serving_is_cancelled_tells_nobody() -> None:
    told: list[str] = []
    patient = Patient()
    server = plugin_server(handler=patient, standalone=True, on_shutdown=lambda: told.append("x"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            await tg.start(server.serve)
            tg.cancel_scope.cancel()
    assert told == []


def test_what_cannot_be_called_is_refused_at_once() -> None:
    for wrong in ("later", [None], 1):
        with pytest.raises(ConfigError, match="on_shutdown"):
            plugin_server(handler=Misc(), on_shutdown=wrong)  # type: ignore[arg-type]
