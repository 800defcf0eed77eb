"""Calls from a plugin back to its host: what the host offers, and what it lends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import anyio
import msgspec
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError
from pyvider_rpcplugin.protocol.typed import Peer, TypedService
from pyvider_rpcplugin.rpc import RawCodec

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.protocol.typed import Loans
    from pyvider_rpcplugin.rpc import Channel, ClientStream, Servable
    from pyvider_rpcplugin.services import Broker

    from ._handle import ChannelHandle
    from ._offers import Offers

logger = event_logger(__name__)

_OFFER = "/pyvider.rpcplugin.Host/Offer"
_PAUSE = 0.5


def checked_services(services: object) -> list[object]:
    """What a host offers, as a list.

    Raises:
        ConfigError: It is none.
        ProtocolError: One of the objects cannot be served.
    """
    if isinstance(services, (str, bytes)) or not hasattr(services, "__iter__"):
        msg = f"services= takes a list of objects, not {services!r}"
        raise ConfigError(msg, phase="settings")
    several: Any = services
    found = list(several)
    for one in found:
        _servable(one, None)  # What is wrong with it, the start says, and not the log.
    return found


def _servable(service: Any, peer: Peer | None) -> Servable:
    """What serves an object to the plugin."""
    if hasattr(service, "__mapping__"):
        servable: Servable = service
        return servable
    return TypedService(service, peer=peer)


@final
class PluginPeer(Peer):
    """The plugin, as its host's services and the proxies of it call it.

    What the host offers is served beside the main connection. The plugin is told where by a call that
    lasts as long as the offer.
    """

    waits = False

    def __init__(self, offers: Offers, broker: Broker, channel: Channel) -> None:
        self._broker = broker
        self._channel = channel
        self._loans = offers.loans
        self._services = [_servable(one, self) for one in offers.services]

    def request(self, *args: Any, **keywords: Any) -> ClientStream[Any, Any]:
        """Prepare a call of the plugin."""
        return self._channel.request(*args, **keywords)

    async def lender(self) -> Loans:
        """What the plugin calls back: it can, since that is being offered."""
        return self._loans

    async def offer(self) -> None:
        """Offer the services for as long as the plugin runs; again, if the connection was lost."""
        while True:
            try:
                async with self._broker.serve([*self._services, self._loans]) as number:
                    await self._tell(number)
            except GRPCError as error:
                logger.debug("host.offer.lost reason=%s", error)
                if error.status is Status.UNIMPLEMENTED:
                    return  # It is no plugin of ours, and calls nothing.
            except RPCPluginError as error:
                logger.debug("host.offer.refused reason=%s", error)
                return
            except Exception:  # boundary: the connection has other uses
                logger.exception("host.offer.failed")
            await anyio.sleep(_PAUSE)

    async def _tell(self, number: int) -> None:
        call = self._channel.request(
            _OFFER, Cardinality.UNARY_STREAM, bytes, bytes, codec=RawCodec("msgpack")
        ).count_apart()
        try:
            await call.send_message(msgspec.msgpack.encode(number), end=True)
            while await call.recv_message() is not None:
                logger.debug("host.offer.taken number=%d", number)
            await call.recv_status()
        finally:
            call.abandon()


@final
class ProxyPeer(Peer):
    """What a client's proxies call: the plugin of whichever start is the current one."""

    waits = False

    def __init__(self, handle: ChannelHandle, offers: Callable[[], Offers]) -> None:
        self._handle = handle
        self._offers = offers

    def request(self, *args: Any, **keywords: Any) -> ClientStream[Any, Any]:
        """Prepare a call."""
        call: ClientStream[Any, Any] = self._handle.request(*args, **keywords)
        return call

    async def lender(self) -> Loans:
        """What the plugin calls back."""
        return self._offers().want()
