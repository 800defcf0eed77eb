"""The plugin that misbehaves when asked to, and how a host takes it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import HandshakeError, RestartPolicy, TransportError, plugin_client
from pyvider_rpcplugin.rpc.errors import DeadlineExceeded
from pyvider_rpcplugin.testing import Scripted, scripted_plugin
from pyvider_rpcplugin.testing._scripted import STEPS

pytestmark = pytest.mark.process

ONCE: dict[str, Any] = {"client_retry_enabled": False, "auto_mtls": False}


@pytest.mark.parametrize(
    ("steps", "kind", "text"),
    [
        (["stderr:out of order", "exit:3"], HandshakeError, "status 3"),
        (["signal:SIGKILL"], HandshakeError, "SIGKILL"),
        (["stdout:1|1|unix"], HandshakeError, "1|1|unix"),
        (["stdout:1|9|unix|/nowhere|grpc"], HandshakeError, "9"),
        (["stdout:1|1|unix|/nowhere/at/all|grpc", "hang"], TransportError, "/nowhere/at/all"),
        (["noise:3000000", "hang"], HandshakeError, ""),
        (["hang"], HandshakeError, "within 1 seconds"),
        (["close-stdout", "hang"], HandshakeError, ""),
        (["child", "exit:4"], HandshakeError, "status 4"),
        (["not-grpc"], TransportError, ""),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else "",
)
async def test_a_start_that_fails(steps: list[str], kind: type[Exception], text: str):
    limit = 1 if "hang" in steps or steps == ["not-grpc"] else 10
    client = plugin_client(
        scripted_plugin(*steps), handshake_timeout=limit, connection_timeout=3, **ONCE
    )
    with anyio.fail_after(15), pytest.raises(kind) as caught:
        await client.start()
    assert text in str(caught.value)


async def test_noise_before_the_line_is_passed_over():
    with anyio.fail_after(15):
        async with plugin_client(scripted_plugin("lines:50", "wait:0.05"), **ONCE) as client:
            assert await client.proxy(Scripted).echo("there") == "there"


async def test_what_it_serves_misbehaves_when_it_is_called():
    printed, heard = bytearray(), anyio.Event()

    def hear(data: bytes) -> None:
        printed.extend(data)
        heard.set()

    command = scripted_plugin()
    with anyio.fail_after(25):
        async with plugin_client(command, sync_stdout=hear, **ONCE) as client:
            scripted = client.proxy(Scripted)
            assert await scripted.pid() == client.pid
            assert [number async for number in scripted.count(3)] == [1, 2, 3]
            with pytest.raises(GRPCError):
                await scripted.fail("on purpose")
            with pytest.raises(DeadlineExceeded):
                await client.proxy(Scripted, timeout=0.05).hang()
            with pytest.raises(DeadlineExceeded):
                await client.proxy(Scripted, timeout=0.05).block(0.3)
            await scripted.say("a line")
            await heard.wait()
            with pytest.raises(GRPCError) as caught:
                await scripted.die(7)
            assert caught.value.status is Status.UNAVAILABLE
            await client.exited.wait()
            assert client.exit is not None
            assert client.exit.status == 7
    assert printed == b"a line\n"


async def test_it_dies_by_a_signal_in_the_middle_of_a_call():
    with anyio.fail_after(15):
        async with plugin_client(scripted_plugin(), **ONCE) as client:
            with pytest.raises(GRPCError, match="SIGSEGV"):
                await client.proxy(Scripted).die_by("SIGSEGV")


async def test_it_has_to_be_killed():
    with anyio.fail_after(25):
        command = scripted_plugin("ignore-shutdown", "ignore-sigterm")
        async with plugin_client(command, grpc_grace_period=0.1, **ONCE) as client:
            await client.ping()
        assert client.exit is not None
        assert client.exit.status == -signal.SIGKILL


async def test_it_fails_once(tmp_path: Path):
    command = scripted_plugin(f"once:{tmp_path / 'begun'}", "signal:SIGKILL")
    with anyio.fail_after(15):
        async with plugin_client(
            command, auto_mtls=False, restart=RestartPolicy(), client_initial_backoff_ms=1
        ) as client:
            assert await client.proxy(Scripted).echo("now") == "now"


@pytest.mark.parametrize(
    "step", ["dance", "exit", "hang:5", "exit:soon", "signal:SIGNOTHING", "stderr"]
)
def test_a_wrong_script_is_refused_before_anything_is_started(step: str):
    with pytest.raises((ValueError, AttributeError)):
        scripted_plugin(step)


def test_the_command_is_this_pythons():
    assert scripted_plugin("hang")[0] == sys.executable
    assert set(STEPS) >= {"exit", "hang", "noise", "signal"}
