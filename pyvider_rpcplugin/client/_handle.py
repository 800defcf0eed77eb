"""The channel that stubs are given: whichever the client has at the moment of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.rpc import Channel


class ChannelHandle:
    """Stands in for a channel wherever one is made into a stub.

    A stub keeps what it was made with; this finds the channel of the current start at each call, so
    the stub outlives stops and starts.
    """

    def __init__(self, current: Callable[[], Channel]) -> None:
        self._current = current

    def request(self, *args: Any, **keywords: Any) -> Any:
        """Begin a call, as a channel does."""
        return self._current().request(*args, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._current(), name)
