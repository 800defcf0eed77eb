"""Where a server listens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pyvider_rpcplugin import transport as transports
from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import ConfigError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.transport import RPCPluginTransport, StreamListener

logger = event_logger(__name__)


class Place:
    """What a program said about where to listen; what it left open, the settings decide."""

    def __init__(
        self,
        transport: str | RPCPluginTransport | None,
        host: str | None,
        port: int | None,
        path: str | None,
    ) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.path = path

    def candidates(self, settings: Settings) -> Iterator[RPCPluginTransport]:
        """The transports to try, the best first.

        Args:
            settings: The server's.

        Raises:
            ConfigError: There is no such transport.
        """
        if isinstance(self.transport, transports.RPCPluginTransport):
            yield self.transport
            return
        if self.transport is not None:
            names: tuple[str, ...] = (self.transport,)
        elif self.path is not None:
            names = ("unix",)
        elif self.host is not None or self.port is not None:
            names = ("tcp",)
        else:
            names = settings.server_transports
        for name in names:
            if name == "unix":
                yield transports.UnixSocketTransport(
                    self.path or settings.server_unix_socket_path or None,
                    folder=settings.unix_socket_dir or None,
                    group=settings.unix_socket_group or None,
                )
            elif name == "tcp":
                host = self.host if self.host is not None else settings.server_host
                for port in self._ports(settings):
                    yield transports.TCPSocketTransport(host, port)
            else:
                msg = f"unknown transport {name!r}"
                raise ConfigError(msg, hint='known are "unix" and "tcp"', phase="listen")

    def _ports(self, settings: Settings) -> range | tuple[int]:
        port = self.port if self.port is not None else settings.server_port
        if port or not settings.max_port:
            return (port,)
        return range(settings.min_port, settings.max_port + 1)


@contextlib.asynccontextmanager
async def listening(place: Place, settings: Settings) -> AsyncGenerator[tuple[str, StreamListener]]:
    """Listen on the first transport that can, and yield its network and the listener.

    Raises:
        TransportError: None can; the error is the last one's. A group that cannot be let in ends
            it at once: it was to decide who may connect.
    """
    failure: TransportError | None = None
    for transport in place.candidates(settings):
        async with contextlib.AsyncExitStack() as stack:
            try:
                listener = await stack.enter_async_context(transport.listen())
            except TransportError as exc:
                logger.debug("server.listen.failed transport=%r reason=%s", transport, exc.message)
                if transport.network == "unix" and settings.unix_socket_group:
                    raise
                failure = exc
                continue
            yield transport.network, listener
            return
    if failure is None:
        msg = "there is no transport to listen on"
        failure = TransportError(msg, hint="PLUGIN_SERVER_TRANSPORTS names them", phase="listen")
    raise failure
