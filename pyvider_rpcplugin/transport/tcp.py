"""TCP over IPv4 and IPv6."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport._stream import SocketListener, SocketStream
from pyvider_rpcplugin.transport.base import Connecting, RPCPluginTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    # IPv4: host and port. IPv6: also flow label and scope.
    SocketAddress = tuple[Any, ...]

__all__ = ["TCPSocketTransport", "format_address", "parse_address"]

_BACKLOG = 1024
_LARGEST_PORT = 65535


def format_address(host: str, port: int) -> str:
    """Write host and port as one word; an IPv6 host goes into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(address: str) -> tuple[str, int]:
    """Read what `format_address` wrote.

    Raises:
        TransportError: It is no host and port.
    """
    host, colon, digits = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (colon and host and digits.isascii() and digits.isdigit()):
        message = f"not a tcp address: {address!r}"
        raise TransportError(message, hint="expected host:port, or [host]:port for IPv6")
    port = int(digits)
    if not 0 < port <= _LARGEST_PORT:
        message = f"not a tcp address: {address!r}"
        raise TransportError(message, hint=f"the port must be between 1 and {_LARGEST_PORT}")
    return host, port


class TCPSocketTransport(RPCPluginTransport):
    """Listens on, or connects to, a TCP port.

    Args:
        host: A name or an address, IPv4 or IPv6. To listen on every interface: "0.0.0.0", "::".
        port: The port. To listen, 0 lets the system choose.
        port_range: To listen on the first free port from the first to the last one of these,
            both included; `port` is then left at 0.
    """

    network = "tcp"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        port_range: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self._host = host
        self._port = port
        self._port_range = port_range

    def __repr__(self) -> str:
        return f"<TCPSocketTransport {format_address(self._host, self._port)}>"

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[SocketListener, None]:
        """Listen for the length of an `async with` block.

        Where the host name has several addresses, the first one that works is taken.
        """
        self._begin_listening()
        candidates = self._ports()
        resolved = await self._resolve(listening=True)
        self._begin_listening()
        sock = self._bind(resolved, candidates)
        host, port = sock.getsockname()[:2]
        listener = SocketListener(sock, format_address(host, port))
        self._listener = listener
        try:
            yield listener
        finally:
            self._listener = None
            await listener.aclose()

    def _ports(self) -> range:
        if self._port_range is None:
            first = last = self._port
        elif self._port:
            message = f"both a port ({self._port}) and a port range {self._port_range}"
            raise TransportError(message, hint="give one of them")
        else:
            first, last = self._port_range
        if not 0 <= first <= last <= _LARGEST_PORT:
            message = f"no valid tcp port or range of ports: {first} to {last}"
            raise TransportError(message, hint=f"ports are numbers from 0 to {_LARGEST_PORT}")
        return range(first, last + 1)

    def _bind(
        self, resolved: list[tuple[socket.AddressFamily, SocketAddress]], ports: range
    ) -> socket.socket:
        """Bind to the first port that is free on one of the addresses."""
        failure: OSError | None = None
        for port in ports:
            for family, address in resolved:
                try:
                    return _listening_socket(family, (address[0], port, *address[2:]))
                except OSError as error:
                    failure = error
        where = format_address(self._host, ports[0])
        if len(ports) > 1:
            where += f" to {ports[-1]}"
        assert failure is not None  # noqa: S101 - a name always has an address, or did not resolve
        message = f"cannot listen on {where}: {_reason(failure)}"
        raise TransportError(message, hint=_listen_hint(failure, len(ports))) from failure

    def connect(self) -> Connecting[SocketStream]:
        """Connect, either by `stream = await ...` or by `async with ... as stream`."""
        return Connecting(self._connect)

    async def _connect(self) -> SocketStream:
        failure: OSError | None = None
        for family, address in await self._resolve(listening=False):
            try:
                return await _connected(family, address)
            except OSError as error:
                failure = error
        where = format_address(self._host, self._port)
        assert failure is not None  # noqa: S101 - a name always has an address, or did not resolve
        message = f"cannot connect to {where}: {_reason(failure)}"
        raise TransportError(message, hint=_connect_hint(failure)) from failure

    async def _resolve(
        self, *, listening: bool
    ) -> list[tuple[socket.AddressFamily, SocketAddress]]:
        if not self._host:  # the resolver would take it for every interface, or for this machine
            message = "no host is given for tcp"
            raise TransportError(message, hint='use "127.0.0.1", or "0.0.0.0" for every interface')
        flags = socket.AI_PASSIVE if listening else 0
        found: Sequence[tuple[Any, ...]]
        try:
            try:
                # A numeric address needs no look-up, and so no thread that does it.
                found = socket.getaddrinfo(
                    self._host,
                    self._port,
                    type=socket.SOCK_STREAM,
                    flags=flags | socket.AI_NUMERICHOST,
                )
            except socket.gaierror:
                found = await anyio.getaddrinfo(
                    self._host, self._port, type=socket.SOCK_STREAM, flags=flags
                )
        except (OSError, UnicodeError, OverflowError) as error:
            message = f"cannot find the host {self._host!r}: {_reason(error)}"
            raise TransportError(message, hint="check the spelling, or use its address") from error
        return [(entry[0], entry[4]) for entry in found]


def _listening_socket(family: socket.AddressFamily, address: SocketAddress) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if os.name == "posix":
            # Allows a restart while old connections linger. On Windows it would let two servers
            # share the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(family: socket.AddressFamily, address: SocketAddress) -> SocketStream:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS or code == getattr(errno, "WSAEWOULDBLOCK", None):
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))  # noqa: TRY301 - the except below closes it
        return SocketStream(sock)
    except BaseException:
        sock.close()
        raise


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error) or type(error).__name__).lower()


def _listen_hint(error: OSError, ports: int) -> str:
    match error.errno:
        case errno.EADDRINUSE if ports > 1:
            return "every port of the range is in use: widen it, or use port 0"
        case errno.EADDRINUSE:
            return "another process has this port: choose another one, or 0 for any free one"
        case errno.EACCES | errno.EPERM:
            return "ports below 1024 need privileges: choose a higher one, or 0 for any free one"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "this machine does not have that address: use 127.0.0.1, or 0.0.0.0 for all"
        case _:
            return "choose another host or port"


def _connect_hint(error: OSError) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "nobody listens there: has the server ended, or is the port another one?"
        case errno.ENETUNREACH | errno.EHOSTUNREACH | errno.ETIMEDOUT:
            return "the host does not answer: check the address and the network"
        case _:
            return "check the host and the port"
