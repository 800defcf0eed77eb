"""The way back to the host, which few plugins go: it is made when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from grpclib.const import Cardinality

from pyvider_rpcplugin.rpc import RawCodec
from pyvider_rpcplugin.rpc._codecs import CodecHandler

if TYPE_CHECKING:
    from grpclib.const import Handler

    from pyvider_rpcplugin.rpc import Server, ServerStream
    from pyvider_rpcplugin.services import Broker

    from ._back import HostPeer

_OFFER = "/pyvider.rpcplugin.Host/Offer"


@final
class HostOffers:
    """Takes what the host offers to its plugin."""

    def __init__(self, broker: Broker, server: Server) -> None:
        self._broker = broker
        self._server = server
        self._peer: HostPeer | None = None
        server.add_service(self, vital=True)
        server.standing.add(_OFFER)
        server.peer = self.peer

    def __mapping__(self) -> dict[str, Handler]:
        """Return the method that the host calls."""
        codecs = {"msgpack": RawCodec("msgpack")}
        return {_OFFER: CodecHandler.make(self._offer, Cardinality.UNARY_STREAM, codecs)}

    async def _offer(self, call: ServerStream[Any, Any]) -> None:
        await self.peer().offer(call)

    def peer(self) -> HostPeer:
        """The host, as handlers call it."""
        if self._peer is None:
            from ._back import HostPeer  # noqa: PLC0415 - see above

            self._peer = HostPeer(self._broker, self._server)
        return self._peer
