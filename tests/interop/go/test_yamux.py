"""Our yamux with that of hashicorp, which go-plugin uses."""

from __future__ import annotations

import json
import random
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyvider_rpcplugin.yamux import (
    DataReceived,
    Event,
    PingAcknowledged,
    SessionFaulted,
    StreamAccepted,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
    YamuxSession,
    YamuxStream,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

# The programs are built in a fixture, which may take longer than a test.
pytestmark = [
    pytest.mark.interop,
    pytest.mark.net,
    pytest.mark.process,
    pytest.mark.timeout(120, func_only=True),
]


class Driver:
    """Runs a session over a socket, a few octets at a time if that is wanted."""

    def __init__(self, stream: ByteStream, *, client: bool, piece: int) -> None:
        self.session = YamuxSession(client=client)
        self.stream = stream
        self.piece = piece
        self.received: dict[int, bytearray] = {}
        self.pending: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.accepted: set[int] = set()
        self.pongs: list[int] = []

    async def flush(self) -> None:
        while self.session.output_size:
            await self.stream.send(self.session.take_output())

    async def run(self, done: Any) -> None:
        """Go on until `done()`, or until the other side closes the connection."""
        await self.flush()
        while not done():
            try:
                data = await self.stream.receive(self.piece)
            except anyio.EndOfStream:
                return
            for event in self.session.receive(data):
                self.handle(event)
            await self.flush()

    def handle(self, event: Event) -> None:
        match event:
            case StreamOpened(stream):
                self.session.accept(stream)
                self.pending[stream.id] = b""
                self.received[stream.id] = bytearray()
            case DataReceived(stream, data):
                self.on_data(stream, data)
            case StreamEnded(stream):
                self.ended.add(stream.id)
                self.on_end(stream)
            case StreamAccepted(stream):
                self.accepted.add(stream.id)
            case PingAcknowledged(value):
                self.pongs.append(value)
            case WindowOpened(stream):
                self.pump(stream)
            case StreamReset() | SessionFaulted():
                pytest.fail(str(event))

    def on_data(self, stream: YamuxStream, data: bytes) -> None:
        self.received[stream.id] += data
        self.session.consumed(stream, len(data))

    def on_end(self, stream: YamuxStream) -> None:
        pass

    def pump(self, stream: YamuxStream) -> None:
        """Send what the window lets pass."""
        data = self.pending.get(stream.id, b"")
        if data and not stream.local_closed:
            sent = self.session.send(stream, data)
            self.pending[stream.id] = data = data[sent:]
            if not data:
                self.all_sent(stream)

    def all_sent(self, stream: YamuxStream) -> None:
        self.session.end(stream)


class Echo(Driver):
    """Sends back what comes, and takes more only when that has gone."""

    def on_data(self, stream: YamuxStream, data: bytes) -> None:
        self.session.consumed(stream, len(data))
        self.pending[stream.id] += data
        self.pump(stream)

    def on_end(self, stream: YamuxStream) -> None:
        self.all_sent(stream)

    def all_sent(self, stream: YamuxStream) -> None:
        if stream.id in self.ended and not self.pending[stream.id]:
            self.session.end(stream)


@asynccontextmanager
async def program(folder: Path, *options: str) -> AsyncIterator[anyio.abc.Process]:
    async with await anyio.open_process([folder / "mux", *options]) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def said(process: anyio.abc.Process) -> dict[str, int]:
    assert process.stdout is not None
    assert process.stderr is not None
    out = b"".join([data async for data in process.stdout])
    errors = b"".join([data async for data in process.stderr])
    assert await process.wait() == 0, errors.decode()
    result: dict[str, int] = json.loads(out)
    return result


@pytest.mark.parametrize(
    ("streams", "size", "piece"), [(1, 2_000_000, 65536), (200, 20_000, 65536), (3, 300_000, 1000)]
)
async def test_we_open_streams(go_programs: Path, streams: int, size: int, piece: int) -> None:
    path = f"{tempfile.gettempdir()}/mux"
    data = random.Random(size).randbytes(size)
    with anyio.fail_after(10):
        async with program(go_programs, "-listen", f"-path={path}") as process:
            assert process.stderr is not None
            assert await process.stderr.receive() == b"listening\n"
            async with await anyio.connect_unix(path) as stream:
                driver = Driver(stream, client=True, piece=piece)
                driver.session.ping(7)
                for _ in range(streams):
                    opened = driver.session.open()
                    driver.received[opened.id] = bytearray()
                    driver.pending[opened.id] = data
                    driver.pump(opened)
                await driver.run(lambda: not driver.session.streams)
                assert driver.pongs == [7]
                assert driver.accepted == driver.ended == set(driver.received)
                assert all(back == data for back in driver.received.values())
            assert await said(process) == {"streams": streams, "bytes": streams * size}


@pytest.mark.parametrize(
    ("streams", "size", "piece"), [(1, 2_000_000, 65536), (200, 20_000, 65536), (3, 300_000, 1000)]
)
async def test_streams_are_opened_for_us(
    go_programs: Path, streams: int, size: int, piece: int
) -> None:
    path = f"{tempfile.gettempdir()}/mux"
    with anyio.fail_after(10):
        async with await anyio.create_unix_listener(path) as listener:
            options = (f"-path={path}", f"-open={streams}", f"-size={size}")
            async with program(go_programs, *options) as process:
                async with await listener.accept() as stream:
                    driver = Echo(stream, client=False, piece=piece)
                    await driver.run(lambda: False)
                    assert len(driver.ended) == streams
                    assert not driver.session.streams
                assert await said(process) == {"streams": streams, "bytes": streams * size}
        await anyio.Path(path).unlink()
