"""A runner whose plugins are reached through a relay, which can cut, halve and delay."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute

from pyvider_rpcplugin.process.runners import Runner, RunSpec, WrappedRunner, subprocess_runner

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class Relay(WrappedRunner):
    """One plugin, and the connections to it."""

    def __init__(self, inner: Runner, path: str) -> None:
        super().__init__(inner)
        self.path = path
        self.target = ""
        self.delay = 0.0
        self.halve = False
        self.streams: set[ByteStream] = set()

    def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
        self.target = address
        return network, self.path

    def cut(self) -> None:
        """End all connections: the tasks that use them find it out."""
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.extra(SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)

    async def serve(self, stream: ByteStream) -> None:
        try:
            other = await anyio.connect_unix(self.target)
        except OSError:
            await anyio.aclose_forcefully(stream)
            return
        ends = {stream, other}
        self.streams |= ends
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.pump, stream, other, tasks.cancel_scope)
                tasks.start_soon(self.pump, other, stream, tasks.cancel_scope)
        finally:
            self.streams -= ends
            for end in ends:
                await anyio.aclose_forcefully(end)

    async def pump(self, source: ByteStream, sink: ByteStream, scope: anyio.CancelScope) -> None:
        with contextlib.suppress(anyio.EndOfStream, *_BROKEN):
            while True:
                data = await source.receive()
                if self.delay:
                    delay, self.delay = self.delay, 0.0
                    await anyio.sleep(delay)
                if self.halve:
                    # A frame that ends in its middle.
                    self.halve = False
                    await sink.send(data[: len(data) // 2])
                    break
                await sink.send(data)
        scope.cancel()


class Relays:
    """Makes runners with relays, and knows those that run."""

    def __init__(self) -> None:
        self.running: dict[int, Relay] = {}

    @asynccontextmanager
    async def runner(self, spec: RunSpec) -> AsyncIterator[Runner]:
        folder = tempfile.mkdtemp(prefix="r-")
        path = os.path.join(folder, "s")
        try:
            async with subprocess_runner(spec) as inner:
                relay = Relay(inner, path)
                pid = inner.pid or 0
                async with await anyio.create_unix_listener(path) as listener:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(listener.serve, relay.serve)
                        self.running[pid] = relay
                        try:
                            yield relay
                        finally:
                            del self.running[pid]
                            tasks.cancel_scope.cancel()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.rmdir(folder)
