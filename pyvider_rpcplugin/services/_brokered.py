"""The server behind one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin.rpc import Server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anyio.abc import ByteStream

    from pyvider_rpcplugin.rpc import RPCOptions, Servable


class BrokeredServer(Server):
    """A server that knows whether somebody is connected.

    Attributes:
        grace: Seconds that running calls get at the end.
    """

    def __init__(self, services: Iterable[Servable], options: RPCOptions, grace: float) -> None:
        super().__init__(services, options=options)
        self.grace = grace
        self._connected = 0
        self._changed = anyio.Event()

    async def serve_stream(self, stream: ByteStream) -> None:
        """Handle the calls of one connection until it ends."""
        self._count(1)
        try:
            await super().serve_stream(stream)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._connected += change
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_left(self, patience: float) -> None:
        """Return once nobody has been connected for `patience` seconds."""
        while True:
            with anyio.move_on_after(patience if not self._connected else None) as scope:
                await self._changed.wait()
            if scope.cancelled_caught:
                return
