"""A runner whose plugins are reached through a relay, which can cut, halve and delay."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskGroup

from pyvider_rpcplugin.process.runners import Runner, RunSpec, WrappedRunner, subprocess_runner

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


async def close_all(streams: set[ByteStream]) -> None:
    """Close all of them: a cancellation would end it with the first."""
    with anyio.CancelScope(shield=True):
        for stream in streams:
            await anyio.aclose_forcefully(stream)


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
        """End all connections."""
        end(*self.streams)

    async def listen(self, listener: SocketListener, tasks: TaskGroup) -> None:
        accepted: set[ByteStream] = set()
        try:
            while True:
                try:
                    stream = await listener.accept()
                except _BROKEN:  # There is no descriptor left.
                    await anyio.sleep(0.02)
                else:
                    accepted.add(stream)
                    tasks.start_soon(self.serve, stream)
        finally:
            # A task that is cancelled before its first step closes nothing.
            await close_all(accepted)

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
                tasks.start_soon(self.pump, stream, other)
                tasks.start_soon(self.pump, other, stream)
        finally:
            self.streams -= ends
            await close_all(ends)

    async def pump(self, source: ByteStream, sink: ByteStream) -> None:
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
        end(source, sink)


def end(*streams: ByteStream) -> None:
    """End connections: the tasks that use them find it out.

    They are not cancelled, as anyio's streams do not take that well while there is something to read.
    """
    for stream in streams:
        with contextlib.suppress(OSError):
            stream.extra(SocketAttribute.raw_socket).shutdown(socket.SHUT_RDWR)


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
                        tasks.start_soon(relay.listen, listener, tasks)
                        self.running[pid] = relay
                        try:
                            yield relay
                        finally:
                            del self.running[pid]
                            with anyio.move_on_after(1, shield=True):
                                while relay.streams:
                                    relay.cut()
                                    await anyio.sleep(0.01)
                            tasks.cancel_scope.cancel()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.rmdir(folder)
