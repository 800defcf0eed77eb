"""Where a host may have its plugin's output brought."""

from __future__ import annotations

import io
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import ByteSendStream

from pyvider_rpcplugin import ConfigError, plugin_client
from pyvider_rpcplugin.client._sinks import delivery
from tests.plugins import FOLDER, talking
from tests.plugins.misc_plugin import ask
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

if TYPE_CHECKING:
    from pathlib import Path

PIECES = ["é".encode()[:1], "é".encode()[1:], b"line\n", b"\xff"]
BYTES = b"".join(PIECES)
TEXT = "éline\n\ufffd"


async def bring(sink: Any) -> None:
    deliver = delivery(sink, "sync_stdout")
    for piece in PIECES:
        await deliver(piece)


async def test_functions_async_or_not() -> None:
    found: list[bytes] = []
    await bring(found.append)
    assert found == PIECES

    async def take(data: bytes) -> None:
        found.append(data)

    await bring(take)
    assert found == PIECES * 2


async def test_files_in_memory() -> None:
    text, binary = io.StringIO(), io.BytesIO()
    await bring(text)
    await bring(binary)
    assert (text.getvalue(), binary.getvalue()) == (TEXT, BYTES)


@pytest.mark.parametrize("buffering", [0, -1])
async def test_files_for_bytes(tmp_path: Path, buffering: int) -> None:
    path = tmp_path / "out"
    with path.open("wb", buffering=buffering) as file:
        await bring(file)
        assert path.read_bytes() == BYTES


async def test_files_for_text(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="utf-8", newline="") as file:
        await bring(file)
        assert path.read_text("utf-8") == TEXT


@pytest.mark.parametrize(("mode", "expected"), [("w+b", BYTES), ("w+", TEXT)])
async def test_files_of_tempfile(mode: Any, expected: Any) -> None:
    with tempfile.NamedTemporaryFile(mode, encoding=None if "b" in mode else "utf-8") as file:
        await bring(file)
        file.seek(0)
        assert file.read() == expected


class ByteStream(ByteSendStream):
    def __init__(self) -> None:
        self.sent = b""

    async def send(self, item: bytes) -> None:
        self.sent += item

    async def aclose(self) -> None:
        raise AssertionError


async def test_streams_of_bytes_and_of_objects() -> None:
    stream = ByteStream()
    await bring(stream)
    assert stream.sent == BYTES
    send, receive = anyio.create_memory_object_stream[bytes](10)
    with send, receive:
        await bring(send)
        assert [receive.receive_nowait() for _ in PIECES] == PIECES


@pytest.mark.process
async def test_what_is_no_sink_is_said_at_the_start() -> None:
    client = plugin_client(talking("asyncio"), sync_stderr=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sync_stderr is int: accepted is"):
        await client.start()
    client = plugin_client(address="/nowhere", sync_stdout=print)
    with pytest.raises(ConfigError, match="sync_stdout needs a command"):
        await client.start()


@pytest.mark.process
async def test_a_plugin_that_knows_nothing_of_this_is_heard_on_its_pipe() -> None:
    out = io.StringIO()
    command = [sys.executable, str(FOLDER / "plain_plugin.py")]
    with anyio.fail_after(10):
        async with plugin_client(command, auto_mtls=False, sync_stdout=out) as client:
            await client.stub(EchoStub).Unary(EchoRequest(text="hello"))
    assert out.getvalue() == "in the same piece\nhello\n"


@pytest.mark.process
async def test_a_sink_that_fails_is_mentioned_once_and_asked_again(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[bytes] = []

    def take(data: bytes) -> None:
        found.append(data)
        raise ValueError("the disk is full")

    with anyio.fail_after(10):
        async with plugin_client(talking(anyio_backend[0]), sync_stdout=take) as client:
            for number in range(3):
                await ask(client.grpc_channel, f"say {number}")
    assert b"".join(found) == b"0\n1\n2\nafter serving\n"
    assert caplog.text.count("sync_stdout failed: ValueError('the disk is full')") == 1


@pytest.mark.process
async def test_a_sink_that_hangs_harms_neither_calls_nor_the_end(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = anyio.Event()

    async def take(data: bytes) -> None:
        hanging.set()
        await anyio.Event().wait()

    size = 40 << 20
    with anyio.fail_after(20):
        async with plugin_client(talking(anyio_backend[0]), sync_stdout=take) as client:
            await ask(client.grpc_channel, "say hello")
            await hanging.wait()
            await ask(client.grpc_channel, f"flood-in-thread {size}")
            await ask(client.grpc_channel, "say still here")
    assert client.exit is not None
    assert client.exit.status == 0
    assert caplog.text.count("sync_stdout takes nothing") == 1
