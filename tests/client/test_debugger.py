"""`debug="wait"`: the plugin waits for a debugger, and the host for the plugin."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import HandshakeError, plugin_client
from tests.plugins import echo

pytestmark = pytest.mark.process

needs_debugpy = pytest.mark.skipif(
    importlib.util.find_spec("debugpy") is None, reason="debugpy is not installed"
)
LOOPS = ["asyncio", "trio"]


class Listener(logging.Handler):
    """Waits for what the plugin's log says."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._arrived = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._arrived.set()

    async def find(self, pattern: str) -> re.Match[str]:
        while True:
            self._arrived = anyio.Event()
            for message in self.messages:
                if match := re.search(pattern, message):
                    return match
            await self._arrived.wait()


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("pyvider_rpcplugin.plugin.echo_plugin")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


class Debugger:
    """A client of the Debug Adapter Protocol: messages of JSON, each after its length."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._buffer = b""
        self._number = 0

    async def send(self, command: str, **arguments: Any) -> int:
        self._number += 1
        message = {
            "seq": self._number, "type": "request", "command": command, "arguments": arguments
        }  # fmt: skip
        body = json.dumps(message).encode()
        await self._stream.send(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return self._number

    async def receive(self) -> dict[str, Any]:
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._stream.receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        length = int(head.rpartition(b":")[2])
        while len(self._buffer) < length:
            self._buffer += await self._stream.receive()
        message: dict[str, Any] = json.loads(self._buffer[:length])
        self._buffer = self._buffer[length:]
        return message

    async def response(self, number: int) -> dict[str, Any]:
        while True:
            message = await self.receive()
            if message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return message

    async def event(self, name: str) -> dict[str, Any]:
        while True:
            message = await self.receive()
            if message["type"] == "event" and message["event"] == name:
                return message


@contextlib.asynccontextmanager
async def attached(port: int) -> AsyncIterator[Debugger]:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        debugger = Debugger(stream)
        await debugger.response(await debugger.send("initialize", adapterID="debugpy"))
        await debugger.send("attach", subProcess=False)
        await debugger.event("initialized")
        yield debugger


@needs_debugpy
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_debugger_attaches_and_then_the_plugin_serves(
    loop: str, log: logging.Logger
) -> None:
    listener = Listener()
    log.addHandler(listener)
    client = plugin_client(echo("--loop", loop), debug="wait", handshake_timeout=0.1)
    started = anyio.Event()

    async def start() -> None:
        await client.start()
        started.set()

    with anyio.fail_after(25):
        async with anyio.create_task_group() as tg:
            tg.start_soon(start)
            found = await listener.find(r"process (\d+), waits .* at 127\.0\.0\.1:(\d+)$")
            assert int(found[1]) == client.pid
            assert client.grpc_channel is None
            async with attached(int(found[2])) as debugger:
                await debugger.response(await debugger.send("configurationDone"))
                await started.wait()
                await client.ping()
                await debugger.response(await debugger.send("disconnect", terminateDebuggee=False))
        await client.ping()
        await client.stop()


@needs_debugpy
async def test_a_plugin_that_waits_ends_with_its_host(log: logging.Logger) -> None:
    listener = Listener()
    log.addHandler(listener)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tg:
            tg.start_soon(plugin_client(echo(), debug="wait").start)
            await listener.find("waits for a debugger")
            tg.cancel_scope.cancel()


@pytest.fixture
def no_debugpy(tmp_path: Path) -> dict[str, str]:
    """The environment of an interpreter that has no debugpy."""
    (tmp_path / "debugpy.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("loop", LOOPS)
async def test_without_debugpy_a_plugin_waits_for_a_signal(
    loop: str, log: logging.Logger, no_debugpy: dict[str, str]
) -> None:
    listener = Listener()
    log.addHandler(listener)
    client = plugin_client(
        echo("--loop", loop),
        debug="wait",
        handshake_timeout=0.1,
        env=no_debugpy,
        log_level="CRITICAL",
    )
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.start)
            found = await listener.find(r"let it go on by `kill -CONT (\d+)`")
            assert client.grpc_channel is None
            os.kill(int(found[1]), signal.SIGCONT)
        await client.ping()
        await client.stop()


async def test_a_waiting_plugin_that_is_killed_is_an_error(
    log: logging.Logger, no_debugpy: dict[str, str]
) -> None:
    listener = Listener()
    log.addHandler(listener)
    client = plugin_client(echo(), debug="wait", env=no_debugpy, client_retry_enabled=False)

    async def start() -> None:
        with pytest.raises(HandshakeError, match="SIGKILL"):
            await client.start()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tg:
            tg.start_soon(start)
            await listener.find("waits for a debugger")
            assert client.pid is not None
            os.kill(client.pid, signal.SIGKILL)


async def test_what_waits_keeps_no_other_plugin_from_starting(
    log: logging.Logger, no_debugpy: dict[str, str]
) -> None:
    listener = Listener()
    log.addHandler(listener)
    with anyio.fail_after(25):
        async with anyio.create_task_group() as tg:
            for _ in range(5):
                client = plugin_client(echo(), debug="wait", env=no_debugpy)
                tg.start_soon(client.start)
            async with plugin_client(echo()) as client:
                await client.ping()
            tg.cancel_scope.cancel()
