"""Connections inside one event loop, for tests: no socket, no file, the same rules."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final
from weakref import WeakValueDictionary

import anyio
from anyio import lowlevel
from anyio.abc import ByteStream

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport.base import Connecting, RPCPluginTransport, StreamListener

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["MemoryListener", "MemoryStream", "MemoryTransport"]

_CAPACITY = 65536

# What the names of listeners stand for, as the system knows the addresses of others.
_listening: WeakValueDictionary[str, MemoryListener] = WeakValueDictionary()


class _Pipe:
    """One direction: a bounded buffer, and what both ends wait for."""

    def __init__(self) -> None:
        self.buffer: bytearray = bytearray()
        self.ended = False  # the sender has said all
        self.abandoned = False  # the receiver is gone
        self.changed: anyio.Event = anyio.Event()

    def notify(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


@final
class MemoryStream(ByteStream):
    """One end of a connection; `MemoryStream.pair()` makes both."""

    def __init__(self, inbound: _Pipe, outbound: _Pipe) -> None:
        self._inbound = inbound
        self._outbound = outbound
        self._closed = False
        self._receiving = anyio.ResourceGuard("receiving from")
        self._sending = anyio.ResourceGuard("sending to")

    @classmethod
    def pair(cls) -> tuple[MemoryStream, MemoryStream]:
        """Make two streams, each of which receives what the other one sends."""
        one, two = _Pipe(), _Pipe()
        return cls(one, two), cls(two, one)

    async def receive(self, max_bytes: int = _CAPACITY) -> bytes:
        """Take what has arrived, or wait for it."""
        with self._receiving:
            await lowlevel.checkpoint()
            pipe = self._inbound
            while not self._closed and not pipe.buffer:
                if pipe.ended:
                    raise anyio.EndOfStream
                await pipe.changed.wait()
            if self._closed:
                raise anyio.ClosedResourceError
            data = bytes(pipe.buffer[:max_bytes])
            del pipe.buffer[:max_bytes]
            pipe.notify()
            return data

    async def send(self, item: bytes) -> None:
        """Send all of it, as fast as the other end takes it."""
        with self._sending:
            await lowlevel.checkpoint()
            pipe = self._outbound
            rest = memoryview(item)
            while True:
                if self._closed or pipe.ended:
                    raise anyio.ClosedResourceError
                if pipe.abandoned:
                    raise anyio.BrokenResourceError
                room = _CAPACITY - len(pipe.buffer)
                if room > 0 and rest:
                    pipe.buffer += rest[:room]
                    rest = rest[room:]
                    pipe.notify()
                if not rest:
                    return
                await pipe.changed.wait()

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on."""
        if self._closed:
            raise anyio.ClosedResourceError
        with self._sending:
            self._outbound.ended = True
            self._outbound.notify()

    async def aclose(self) -> None:
        """Close both directions. Never raises."""
        if not self._closed:
            self._closed = True
            self._outbound.ended = True
            self._inbound.abandoned = True
            self._outbound.notify()
            self._inbound.notify()


@final
class MemoryListener(StreamListener):
    """Accepts what `MemoryTransport.connect` makes."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._waiting: deque[MemoryStream] = deque()
        self._changed = anyio.Event()
        self._closed = False
        self._accepting = anyio.ResourceGuard("accepting connections from")

    @property
    def address(self) -> str:
        """A name; nobody outside can connect to it."""
        return self._address

    async def accept(self) -> MemoryStream:
        """Wait for the next connection."""
        with self._accepting:
            await lowlevel.checkpoint()
            while not self._closed:
                if self._waiting:
                    return self._waiting.popleft()
                self._changed = anyio.Event()
                await self._changed.wait()
            raise anyio.ClosedResourceError

    def offer(self) -> MemoryStream:
        """Make a connection; the other end waits to be accepted."""
        if self._closed:
            message = f"cannot connect to {self._address}: the listener is closed"
            raise TransportError(message, hint="the server has ended")
        ours, theirs = MemoryStream.pair()
        self._waiting.append(theirs)
        self._changed.set()
        return ours

    async def aclose(self) -> None:
        """Stop accepting; who waits to be accepted gets the end of the stream. Never raises."""
        self._closed = True
        self._changed.set()
        while self._waiting:
            await self._waiting.popleft().aclose()


class MemoryTransport(RPCPluginTransport):
    """Connects tasks of one event loop: `connect` reaches the `listen` of the same object.

    Or, with the address of a listener of another one, that.

    Args:
        address: Where to connect to, if not to this object's own listener.
    """

    network = "memory"

    def __init__(self, address: str | None = None) -> None:
        super().__init__()
        self._other = address

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[MemoryListener, None]:
        """Listen for the length of an `async with` block."""
        self._begin_listening()
        listener = MemoryListener(f"memory-{id(self):x}")
        self._listener = _listening[listener.address] = listener
        try:
            yield listener
        finally:
            self._listener = None
            _listening.pop(listener.address, None)
            await listener.aclose()

    def connect(self) -> Connecting[MemoryStream]:
        """Connect, either by `stream = await ...` or by `async with ... as stream`."""
        return Connecting(self._connect)

    async def _connect(self) -> MemoryStream:
        await lowlevel.checkpoint()
        listener = self._listener if self._other is None else _listening.get(self._other)
        if not isinstance(listener, MemoryListener):
            message = "cannot connect in memory: nobody listens"
            raise TransportError(message, hint="enter listen() of the same object first")
        return listener.offer()
