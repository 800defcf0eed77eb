"""How brokered connections are made: beside the main one, and as secure as it is."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from pyvider_rpcplugin.exception import TransportError

from ._messages import ConnInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.abc import ByteStream

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto import Credentials
    from pyvider_rpcplugin.process import AttachedRunner
    from pyvider_rpcplugin.transport import RPCPluginTransport, StreamListener


class Ways(Protocol):
    """Makes the listeners and connections of a broker.

    Attributes:
        networks: What the other side may name.
        announces: Whether a service has to be announced before it can be dialled.
        scheme: What requests say: `http`, or `https` if connections are encrypted.
        say: Sends a message to the other side's broker; set by the broker.
    """

    networks: tuple[str, ...]
    announces: bool
    scheme: str
    say: Callable[[ConnInfo], None]

    def listen(
        self, service_id: int
    ) -> AbstractAsyncContextManager[tuple[ConnInfo | None, StreamListener]]:
        """Listen for the length of a block; yields the announcement and the listener."""

    async def connect(self, info: ConnInfo) -> ByteStream:
        """Connect to what the other side has announced."""

    def hear(self, info: ConnInfo) -> bool:
        """Take a message of the other side's broker; False if it is not for this."""


class SocketWays:
    """Sockets of the same kind, in the same place, with the same certificates.

    Args:
        network: That of the main connection.
        host: Where to listen with tcp.
        settings: Folder, group, range of ports, times.
        credentials: Those of the main connection; None if it is plain.
        is_host: Which side this is: the host's credentials are made for connecting.
        runner: Translates addresses, where the other side sees others.
    """

    networks: tuple[str, ...] = ("unix", "tcp")
    announces: bool = True
    say: Callable[[ConnInfo], None]

    def __init__(
        self,
        network: str,
        host: str,
        settings: Settings,
        credentials: Credentials | None,
        *,
        is_host: bool,
        runner: AttachedRunner | None = None,
    ) -> None:
        self._network = network
        self._host = host
        self._settings = settings
        self._credentials = credentials
        self._is_host = is_host
        self._runner = runner
        self.scheme: str = "http" if credentials is None else "https"

    @asynccontextmanager
    async def listen(self, service_id: int) -> AsyncGenerator[tuple[ConnInfo, StreamListener]]:
        """Listen for the length of a block.

        Raises:
            TransportError: There is no way to.
            SecurityError: This side has no certificate to show.
        """
        credentials = self._credentials
        if credentials is not None and self._is_host:
            credentials = credentials.reversed()
        async with self._transport().listen() as listener:
            where = self._network, listener.address
            if self._runner is not None:
                where = self._runner.host_to_plugin(*where)
            info = ConnInfo(service_id, *where)
            if credentials is None:
                yield info, listener
                return
            from pyvider_rpcplugin.transport import TLSListener  # noqa: PLC0415 - loads ssl

            timeout = self._settings.connection_timeout
            yield info, TLSListener(listener, credentials, handshake_timeout=timeout)

    def _transport(self) -> RPCPluginTransport:
        from pyvider_rpcplugin.transport import (  # noqa: PLC0415 - most hosts never listen
            TCPSocketTransport,
            UnixSocketTransport,
        )

        settings = self._settings
        if self._network == "unix":
            return UnixSocketTransport(
                folder=settings.unix_socket_dir or None, group=settings.unix_socket_group or None
            )
        if self._network == "tcp":
            ports = (settings.min_port, settings.max_port) if settings.max_port else None
            return TCPSocketTransport(self._host, port_range=ports)
        msg = f"the broker cannot listen: the plugin's transport is {self._network!r}"
        raise TransportError(msg, 'It can with "unix" and "tcp".', phase="broker")

    async def connect(self, info: ConnInfo) -> ByteStream:
        """Connect to what the other side has announced.

        Raises:
            TransportError: Nobody listens there, or it is no address.
            SecurityError: Somebody else does, or this side has no certificate to show.
        """
        from pyvider_rpcplugin.transport import transport_for  # noqa: PLC0415 - see above

        credentials = self._credentials
        if credentials is not None and not self._is_host:
            credentials = credentials.reversed()
        network, address = info.network, info.address
        if self._runner is not None:
            network, address = self._runner.plugin_to_host(network, address)
        stream: ByteStream = await transport_for(network, address).connect()
        if credentials is None:
            return stream
        from pyvider_rpcplugin.transport import wrap_client  # noqa: PLC0415 - loads ssl

        return await wrap_client(stream, credentials)

    def hear(self, info: ConnInfo) -> bool:
        """Nothing but announcements is expected here."""
        return False
