"""The other side, where both can call each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvider_rpcplugin.rpc import ClientStream

    from ._loans import Loans

__all__ = ["Peer"]


class Peer:
    """A host for its plugin, or a plugin for its host: what calls to it go through.

    Attributes:
        waits: Whether `ready` has to be awaited before a call.
    """

    waits: bool = True

    def request(self, *args: Any, **keywords: Any) -> ClientStream[Any, Any]:
        """Prepare a call, once it is `ready`; see `Channel.request`."""
        raise NotImplementedError

    async def ready(self) -> None:
        """Wait until it can be called.

        Raises:
            RPCPluginError: It never will be.
        """

    async def lender(self) -> Loans:
        """What it calls back, once it can.

        Raises:
            RPCPluginError: It never will.
        """
        raise NotImplementedError
