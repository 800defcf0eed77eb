"""Connections for threads without an event loop: sockets that never wait, plain or with TLS.

Whoever uses one waits by itself, with `select`, where reading or sending has to. They are made in an
event loop, and then given away to threads.
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from pyvider_rpcplugin._forks import keep_from_children
from pyvider_rpcplugin.transport._stream import SocketStream

if TYPE_CHECKING:
    import ssl

    from anyio.abc import ByteStream

    from pyvider_rpcplugin.transport._tls import TLSStream

__all__ = ["BlockingSocket", "BlockingTLSSocket", "blocking_socket"]

_RECEIVE_SIZE = 262_144
_LARGEST_RECORD = 16_384
_PIECE = 65_536


class BlockingSocket:
    """A connected socket that keeps what it could not send at once.

    Attributes:
        unsent: Octets that wait for `push`.
    """

    def __init__(self, sock: socket.socket, arrived: bytes = b"") -> None:
        self._arrived = arrived
        self._socket = sock
        self._send = sock.send
        self._receive = sock.recv
        self._parts: deque[bytes | memoryview] = deque()
        self.unsent: int = 0
        keep_from_children(self)

    def abandon(self) -> None:
        """In a forked child: it is the parent's."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, to wait on; -1 once it is closed."""
        return self._socket.fileno()

    def address(self) -> object:
        """The peer's address: host and port, or a path."""
        try:
            return self._socket.getpeername()
        except OSError:
            return None

    def certificate(self) -> dict[str, Any] | None:
        """The peer's certificate as `ssl` describes it; None without TLS."""
        return None

    def receive(self) -> bytes | None:
        """What has arrived; b"" at the end, None if there is nothing yet.

        Raises:
            OSError: The connection is lost.
        """
        if self._arrived:
            arrived, self._arrived = self._arrived, b""
            return arrived
        try:
            return self._receive(_RECEIVE_SIZE)
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, data: bytes | memoryview) -> None:
        """Send, now as far as that is possible, the rest with `push`.

        Raises:
            OSError: The connection is lost.
        """
        self._put(data)

    def _put(self, data: bytes | memoryview) -> None:
        if not self.unsent:
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._parts.append(data)
        self.unsent += len(data)

    def push(self) -> None:
        """Send what could not be sent before, as far as that is possible now.

        Raises:
            OSError: The connection is lost.
        """
        parts = self._parts
        while parts:
            part = parts[0]
            try:
                sent = self._send(part)
            except (BlockingIOError, InterruptedError):
                return
            self.unsent -= sent
            if sent < len(part):
                parts[0] = memoryview(part)[sent:]
            else:
                parts.popleft()

    def drop(self) -> None:
        """Forget what was not sent: nobody will read it."""
        self._parts.clear()
        self.unsent = 0

    def shut_down(self) -> None:
        """End both directions at once; who waits on it sees the end."""
        with suppress(OSError):  # The peer was faster.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Nobody may be waiting on it."""
        self._socket.close()


class BlockingTLSSocket(BlockingSocket):
    """The same, encrypted: OpenSSL computes in memory, in the order of the calls."""

    def __init__(
        self,
        sock: socket.socket,
        arrived: bytes,
        connection: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        import ssl  # noqa: PLC0415 - not everybody needs it

        super().__init__(sock, b"")
        self._want_read = ssl.SSLWantReadError
        self._connection = connection
        self._incoming = incoming
        self._outgoing = outgoing
        incoming.write(arrived)
        self._some_arrived = incoming.pending > 0

    def certificate(self) -> dict[str, Any] | None:
        """The peer's certificate as `ssl` describes it."""
        return self._connection.getpeercert()

    def receive(self) -> bytes | None:
        """What has arrived whole; b"" at the end, None if there is nothing yet.

        Raises:
            OSError: The connection is lost; `ssl`'s errors are such.
        """
        data = super().receive()
        if data:
            self._incoming.write(data)
        elif not self._some_arrived:
            return data
        self._some_arrived = False
        pieces: list[bytes] = []
        read, incoming = self._connection.read, self._incoming
        ended = False
        try:
            while True:
                piece = read(_LARGEST_RECORD)
                if not piece:
                    ended = True
                    break
                pieces.append(piece)
                if not incoming.pending:
                    break
        except self._want_read:
            pass
        if self._outgoing.pending:
            self._put(self._outgoing.read())
        if len(pieces) == 1:
            return pieces[0]
        # At its end, what came before is given first: reading again gives the end.
        return b"".join(pieces) if pieces or ended else None

    def send(self, data: bytes | memoryview) -> None:
        """Encrypt and send, now as far as that is possible, the rest with `push`."""
        write, outgoing = self._connection.write, self._outgoing
        if len(data) <= _PIECE:
            write(data)
            self._put(outgoing.read())
            return
        rest = memoryview(data)
        while rest:
            rest = rest[write(rest[:_PIECE]) :]
            self._put(outgoing.read())


def blocking_socket(stream: ByteStream) -> BlockingSocket | None:
    """Make one out of a new connection of an event loop's, which it belongs to no more.

    To be called in that loop. None where the stream has no socket of its own.
    """
    if isinstance(stream, SocketStream):
        return BlockingSocket(*stream.detach())
    below = getattr(stream, "below", None)
    if not isinstance(below, SocketStream):
        return None
    tls: TLSStream = cast("TLSStream", stream)
    connection, incoming, outgoing = tls.detach()
    return BlockingTLSSocket(*below.detach(), connection, incoming, outgoing)
