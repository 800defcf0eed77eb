"""Byte streams and listeners over non-blocking sockets, the same on every event loop.

The socket is ours rather than the event loop's, so that the RPC engine can write in the middle
of a state change without an await (`SocketStream.send_nowait`).
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, final

import anyio
from anyio import lowlevel
from anyio.abc import ByteStream, SocketAttribute

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._forks import keep_from_children
from pyvider_rpcplugin._loops import eager_reader
from pyvider_rpcplugin.transport.base import StreamListener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvider_rpcplugin._loops import EagerReader

logger = event_logger(__name__)

# Room for a large read costs ten times a small read, so it is given only while reads fill it.
_SMALLEST_READ = 65536
_LARGEST_READ = 262144

# A stream yields to the other tasks at least this often, however fast its peer is.
_BYTES_UNTIL_YIELD = 262_144
_CALLS_UNTIL_YIELD = 100

# With the usual 208 KiB of a Unix socket two processes take turns over a large message, instead of
# writing and reading at the same time. Linux doubles it, for what it takes itself, and gives less where
# net.core.wmem_max says so. TCP finds its own.
_SEND_BUFFER = 524_288

# As many as every system takes in one call, and more than it takes to fill a socket.
_PARTS_AT_A_TIME = 64

# A program that restored the default action of SIGPIPE must not be killed by a closed peer.
_SEND_FLAGS: int = getattr(socket, "MSG_NOSIGNAL", 0)

# accept() reports troubles of the one connection that it would have given: take the next one.
_LOST_CONNECTION = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EPERM",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)
# The process or the machine lacks something that may come back: wait a little.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_DELAY = 0.1


class _OwnSocket:
    """A socket that the loop knows nothing about, its closing, and its extra attributes."""

    _socket: socket.socket
    _closed: bool

    async def aclose(self) -> None:
        """Close the socket; a task that waits on it gets ClosedResourceError. Never raises."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            with suppress(OSError):
                self._socket.close()

    def abandon(self) -> None:
        """In a forked process: close its copy. The connection is the parent's, and goes on there.

        The loop is not told: what it waits with is shared with the parent's.
        """
        self._closed = True
        with suppress(OSError):
            self._socket.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of `anyio.abc.SocketAttribute`, as far as they exist for the socket."""
        sock = self._socket
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: sock.family,
            SocketAttribute.local_address: lambda: _plain_address(sock.getsockname()),
            SocketAttribute.raw_socket: lambda: sock,
        }
        is_ip = sock.family in {socket.AF_INET, socket.AF_INET6}
        if is_ip:
            attributes[SocketAttribute.local_port] = lambda: sock.getsockname()[1]
        try:
            peer = sock.getpeername()
        except OSError:
            return attributes
        attributes[SocketAttribute.remote_address] = lambda: _plain_address(peer)
        if is_ip:
            attributes[SocketAttribute.remote_port] = lambda: peer[1]
        return attributes


def _plain_address(address: Any) -> Any:
    """Bring an address to the form that anyio gives: host and port only, or a path."""
    return address if isinstance(address, (str, bytes)) else address[:2]


@final
class SocketStream(_OwnSocket, ByteStream):
    """A connected stream socket.

    One task may receive and another one send at the same time. Both return without giving
    control to other tasks when the socket is ready, but not for more than 256 KiB or 100 calls in
    a row, except for what the socket takes with one system call.

    Args:
        sock: A connected socket; the stream owns it from now on.

    Ownership:
        Whoever got the stream closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            with suppress(OSError):  # Some systems refuse what is above their limit.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._socket = sock
        self._closed = False
        self._recv = sock.recv
        self._send = sock.send
        # Windows has none.
        self._sendmsg: Callable[..., int] | None = getattr(sock, "sendmsg", None)
        self._reader: EagerReader | None = None
        self._reader_chosen = False
        self._receiving = False
        self._drained = False
        self._sending = False
        self._read_size = _SMALLEST_READ
        self._received_bytes = 0
        self._received_calls = 0
        self._sent_bytes = 0
        self._sent_calls = 0
        keep_from_children(self)

    async def receive(self, max_bytes: int = _LARGEST_READ) -> bytes:
        """Take what has arrived, or wait for it.

        Cancellation:
            Safe: nothing that was received is lost.
        """
        if self._receiving:
            action = "receiving from"
            raise anyio.BusyResourceError(action)
        if self._closed:
            raise anyio.ClosedResourceError
        self._receiving = True
        try:
            if (
                self._received_bytes >= _BYTES_UNTIL_YIELD
                or self._received_calls >= _CALLS_UNTIL_YIELD
            ):
                self._received_bytes = self._received_calls = 0
                await lowlevel.checkpoint()
            size = min(self._read_size, max_bytes)
            reader = self._reader
            try:
                data = reader.take(size) if reader is not None else None
                if self._drained and reader is None:
                    # Nothing was left: to ask for it would be a system call for nothing.
                    self._drained = False
                    self._received_bytes = self._received_calls = 0
                    data = await self._wait_for_data(size)
                while data is None:
                    try:
                        data = self._recv(size)
                    except BlockingIOError:
                        self._received_bytes = self._received_calls = 0
                        data = await self._wait_for_data(size)
            except OSError as error:
                raise self._failure() from error
        finally:
            self._receiving = False
        received = len(data)
        if not received:
            raise anyio.EndOfStream
        self._received_bytes += received
        self._received_calls += 1
        self._drained = received < size
        self._adapt(received)
        return data

    def _adapt(self, received: int) -> None:
        """Choose how much to read at a time."""
        if received == self._read_size:
            self._read_size = min(received * 2, _LARGEST_READ)
        elif received < self._read_size >> 2:
            self._read_size = _SMALLEST_READ

    async def feed(self, take: Callable[[bytes], bool]) -> None:
        """Hand all that arrives to a function, until that wants no more.

        It costs less than to `receive` each time. The function must not wait for anything; it may
        be called outside of any task, and may start tasks.

        Args:
            take: Gets the bytes; says whether it wants more.

        Raises:
            anyio.EndOfStream: The peer has closed its side.
            anyio.BrokenResourceError: The connection is lost.
            anyio.ClosedResourceError: The stream was closed.

        Cancellation:
            Safe: nothing that was received is lost.
        """
        while take(await self.receive()):
            reader = self._reader
            if reader is not None and not reader.holds_some:
                await self._feed(reader, take)
                return

    async def _feed(self, reader: EagerReader, take: Callable[[bytes], bool]) -> None:
        ended = False

        def taken(data: bytes) -> bool:
            nonlocal ended
            received = len(data)
            if not received:
                ended = True
                return False
            self._adapt(received)
            reader.size = self._read_size
            return take(data)

        self._receiving = True
        reader.size = self._read_size
        try:
            await reader.feed(taken)
        except OSError as error:
            raise self._failure() from error
        finally:
            self._receiving = False
        if self._closed:
            raise anyio.ClosedResourceError
        if ended:
            raise anyio.EndOfStream

    async def _wait_for_data(self, size: int) -> bytes | None:
        """Wait for data; None where it has to be fetched still."""
        if not self._reader_chosen:
            self._reader_chosen = True
            self._reader = eager_reader(self._socket)
        if self._reader is not None:
            return await self._reader.wait(size)
        await anyio.wait_readable(self._socket)
        return None

    async def aclose(self) -> None:
        """Close the socket; a task that waits on it gets ClosedResourceError. Never raises."""
        if self._reader is not None and not self._closed:
            self._reader.close()
        await super().aclose()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Give the socket away, with what was read from it and not received; the stream is closed.

        No task may be using it.
        """
        arrived = b""
        if self._reader is not None:
            arrived = self._reader.take(_LARGEST_READ) or b""
            self._reader.close()
        self._closed = True
        return self._socket, arrived

    async def send(self, item: bytes) -> None:
        """Send all of it.

        Cancellation:
            A part of it may have been sent: after that only closing makes sense.
        """
        await self.send_parts([item])

    async def send_parts(self, parts: list[bytes | memoryview]) -> None:
        """Send all of several pieces as if they were one, with as few system calls as it takes.

        Cancellation:
            A part of them may have been sent: after that only closing makes sense.
        """
        if self._sending:
            action = "sending to"
            raise anyio.BusyResourceError(action)
        self._sending = True
        try:
            while parts:
                if self._sent_bytes >= _BYTES_UNTIL_YIELD or self._sent_calls >= _CALLS_UNTIL_YIELD:
                    self._sent_bytes = self._sent_calls = 0
                    await lowlevel.checkpoint()
                try:
                    sent = self._send_some(parts)
                except BlockingIOError:
                    self._sent_bytes = self._sent_calls = 0
                    await anyio.wait_writable(self._socket)
                except OSError as error:
                    raise self._failure() from error
                else:
                    self._sent_bytes += sent
                    self._sent_calls += 1
                    parts = _without(parts, sent)
        finally:
            self._sending = False

    def _send_some(self, parts: list[bytes | memoryview]) -> int:
        if len(parts) == 1 or self._sendmsg is None:
            return self._send(parts[0], _SEND_FLAGS)
        return self._sendmsg(parts[:_PARTS_AT_A_TIME], (), _SEND_FLAGS)

    def send_nowait(self, data: bytes) -> int:
        """Send what the socket takes right now.

        Returns:
            The number of bytes taken, 0 if it would have to wait.

        Raises:
            anyio.BusyResourceError: A `send` is under way: these bytes would land in its middle.
            anyio.BrokenResourceError: The connection is lost.
            anyio.ClosedResourceError: The stream was closed.
        """
        if self._sending:
            action = "sending to"
            raise anyio.BusyResourceError(action)
        try:
            return self._send(data, _SEND_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._failure() from error

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on."""
        if self._closed:
            raise anyio.ClosedResourceError
        if self._sending:
            action = "sending to"
            raise anyio.BusyResourceError(action)
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # the peer has reset it: there is nobody to tell
                raise self._failure() from error

    def _failure(self) -> anyio.ClosedResourceError | anyio.BrokenResourceError:
        return anyio.ClosedResourceError() if self._closed else anyio.BrokenResourceError()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self._socket.fileno()}"
        return f"<SocketStream {state}>"


def _without(parts: list[bytes | memoryview], sent: int) -> list[bytes | memoryview]:
    """What is left of the pieces after so many octets."""
    for index, part in enumerate(parts):
        size = len(part)
        if sent < size:
            return [memoryview(part)[sent:], *parts[index + 1 :]]
        sent -= size
    return []


@final
class SocketListener(_OwnSocket, StreamListener):
    """A listening socket.

    Args:
        sock: A bound and listening socket; the listener owns it from now on.
        address: Where it listens, as a handshake line says it.
    """

    def __init__(self, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._closed = False
        self._accepting = False
        self._address = address
        keep_from_children(self)

    @property
    def address(self) -> str:
        """Where it listens, in the form that a handshake line carries."""
        return self._address

    async def accept(self) -> SocketStream:
        """Wait for the next connection.

        What goes wrong with a single connection is passed over; where descriptors or memory are
        short, it waits until there are some again.
        """
        if self._accepting:
            action = "accepting connections from"
            raise anyio.BusyResourceError(action)
        self._accepting = True
        try:
            await lowlevel.checkpoint()
            while True:
                try:
                    sock, _ = self._socket.accept()
                except BlockingIOError:
                    await anyio.wait_readable(self._socket)
                except OSError as error:
                    await self._survive(error)
                else:
                    stream = _stream_or_none(sock)
                    if stream is not None:
                        return stream
        finally:
            self._accepting = False

    async def _survive(self, error: OSError) -> None:
        """Return if accepting can go on after this error."""
        if self._closed:
            raise anyio.ClosedResourceError from error
        if error.errno in _EXHAUSTED:
            reason = os.strerror(error.errno or 0)
            logger.warning("transport.accept.exhausted address=%s reason=%s", self._address, reason)
            await anyio.sleep(_EXHAUSTED_DELAY)
        elif error.errno in _LOST_CONNECTION:
            logger.debug("transport.accept.lost address=%s errno=%s", self._address, error.errno)
            await lowlevel.checkpoint()
        else:
            raise anyio.BrokenResourceError from error

    def __repr__(self) -> str:
        return f"<SocketListener {self._address}{' closed' if self._closed else ''}>"


def _stream_or_none(sock: socket.socket) -> SocketStream | None:
    """Wrap an accepted socket; None when the peer has already gone again."""
    try:
        return SocketStream(sock)
    except OSError:  # some systems refuse options of a connection that was reset
        sock.close()
        return None
