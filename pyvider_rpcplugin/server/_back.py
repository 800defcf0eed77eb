"""Calls from a plugin to the host that started it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, final

import anyio
import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.protocol.typed import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvider_rpcplugin.protocol.typed import Loans
    from pyvider_rpcplugin.rpc import Channel, ClientStream, Server, ServerStream
    from pyvider_rpcplugin.services import Broker

T = TypeVar("T")

# How long the host may take to offer its services. It begins when it has connected.
_PATIENCE = 5.0


@final
class HostPeer(Peer):
    """The host: it says over the main connection where it serves what this plugin may call.

    It does so with a call that lasts as long as the offer. Its message is the number to dial, and
    the answer says that this plugin has connected.
    """

    def __init__(self, broker: Broker, server: Server) -> None:
        self._broker = broker
        self._server = server
        self._channel: Channel | None = None
        self._changed = anyio.Event()
        self._loans: Loans | None = None

    async def offer(self, call: ServerStream[Any, Any]) -> None:
        """Handle the host's call."""
        data = await call.recv_message()
        try:
            number = msgspec.msgpack.decode(data or b"", type=int)
        except msgspec.MsgspecError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
        try:
            async with self._broker.dial(number) as channel:
                self._change(channel)
                await call.send_message(b"\xc0")
                # The host ends the call when it offers nothing more.
                await call.recv_message()
                await anyio.Event().wait()
        except RPCPluginError as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from error
        finally:
            self._change(None)

    def _is_offered(self) -> bool:
        return self._channel is not None

    def _change(self, channel: Channel | None) -> None:
        self._channel = channel
        self._changed.set()
        self._changed = anyio.Event()

    # What handlers do with it.

    def proxy(
        self,
        interface: Callable[..., T],
        *,
        service_name: str | None,
        timeout: float | None,
        metadata: Mapping[str, str | bytes] | None,
    ) -> T:
        """Make an object whose methods are calls of the host."""
        from pyvider_rpcplugin.protocol.typed import make_proxy  # noqa: PLC0415 - few plugins call

        return make_proxy(
            interface, self, service_name=service_name, timeout=timeout, metadata=metadata
        )

    async def ready(self) -> None:
        """Wait until the host can be called.

        Raises:
            RPCPluginError: It offers nothing.
        """
        if self._is_offered():
            return
        with anyio.move_on_after(_PATIENCE):
            while not self._is_offered():
                await self._changed.wait()
        if self._is_offered():
            return
        msg = f"the host has offered nothing to call within {_PATIENCE:g} seconds"
        hint = "It does with plugin_client(..., services=[...])."
        raise RPCPluginError(msg, hint, phase="call")

    def request(self, *args: Any, **keywords: Any) -> ClientStream[Any, Any]:
        """Prepare a call of the host.

        Raises:
            GRPCError: UNAVAILABLE, the host has stopped offering anything.
        """
        if self._channel is None:
            raise GRPCError(Status.UNAVAILABLE, "the host offers nothing to call any more")
        return self._channel.request(*args, **keywords)

    async def lender(self) -> Loans:
        """What the host calls back, over the main connection."""
        if self._loans is None:
            from pyvider_rpcplugin.protocol.typed import Loans  # noqa: PLC0415 - few plugins lend

            self._loans = Loans()
            self._server.add_service(self._loans)
        return self._loans
