"""What a plugin writes to its standard error, as it comes, where its host wants it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import ConfigError, HandshakeError, plugin_client
from tests.plugins import broken, talking
from tests.plugins.misc_plugin import ask

pytestmark = pytest.mark.process


async def test_it_comes_as_it_is_and_goes_into_the_log_too(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    heard = io.BytesIO()
    with anyio.fail_after(10):
        async with plugin_client(talking(anyio_backend[0]), stderr=heard) as client:
            await ask(client.grpc_channel, "log 40 an error")
            await ask(client.grpc_channel, "raw \xff\0 no text")
            await ask(client.grpc_channel, "complain of something else")
        assert client.exit is not None
        assert client.exit.status == 0
    line, raw, rest = heard.getvalue().split(b"\n")
    assert line.startswith(b'{"@level":"error","@message":"an error"')
    assert (raw, rest) == (b"\xff\0 no text", b"")
    assert "an error" in caplog.text


async def test_what_is_said_before_a_start_fails_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with anyio.fail_after(10), path.open("wb") as file:
        with pytest.raises(HandshakeError):
            await plugin_client(broken("exits"), stderr=file).start()
    lines = path.read_text().splitlines()
    assert lines == ["starting exits", *(f"reason {number}" for number in range(100))]


async def test_a_sink_that_hangs_harms_neither_the_plugin_nor_its_end(
    anyio_backend: Any,
) -> None:
    hanging = anyio.Event()

    async def take(_data: bytes) -> None:
        hanging.set()
        await anyio.Event().wait()

    with anyio.fail_after(10):
        async with plugin_client(talking(anyio_backend[0]), stderr=take) as client:
            for _ in range(20):
                await ask(client.grpc_channel, f"raw {'x' * 100_000}")
            await hanging.wait()
        assert client.exit is not None
        assert client.exit.status == 0


async def test_a_sink_that_fails_is_mentioned_and_harms_nobody(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def take(_data: bytes) -> None:
        raise OSError("the disk is full")

    with anyio.fail_after(10):
        async with plugin_client(talking(anyio_backend[0]), stderr=take) as client:
            await ask(client.grpc_channel, "raw one")
            await ask(client.grpc_channel, "raw two")
    assert caplog.text.count("stderr failed: OSError('the disk is full')") == 1


async def test_a_plugin_that_runs_already_has_none(tmp_path: Path) -> None:
    client = plugin_client(address=str(tmp_path / "socket"), stderr=io.BytesIO())
    with anyio.fail_after(5), pytest.raises(ConfigError, match="stderr"):
        await client.start()
    with pytest.raises(ConfigError, match="stderr is int"):
        wrong: Any = 2
        await plugin_client(broken("exits"), stderr=wrong).start()
