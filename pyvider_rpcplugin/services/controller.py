"""The service by which a host asks its plugin to end, `plugin.GRPCController`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Cardinality, Handler

from ._messages import Empty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["ControllerService", "request_shutdown"]

_SHUTDOWN = "/plugin.GRPCController/Shutdown"


class ControllerService:
    """Answers Shutdown, and then has the plugin stop."""

    def __init__(self, before: Callable[[], Awaitable[object]], stop: Callable[[], None]) -> None:
        """Make the service.

        Args:
            before: What there is to do before the answer: some hosts close the connection as soon
                as they have it. It bounds itself.
            stop: Begins the stop and returns at once. The call that asked for it is itself one of
                the calls that the stop waits for, so its answer still goes out.
        """
        self._before = before
        self._stop = stop

    def __mapping__(self) -> dict[str, Handler]:
        """Name the method, as a generated grpclib class does."""
        return {_SHUTDOWN: Handler(self._shutdown, Cardinality.UNARY_UNARY, Empty, Empty)}

    async def _shutdown(self, stream: Any) -> None:
        await stream.recv_message()
        await self._before()
        await stream.send_message(Empty())
        self._stop()


async def request_shutdown(channel: Any) -> None:
    """Ask the plugin at the other end of `channel` to end. The caller bounds it.

    Raises:
        GRPCError: It was not answered. Some plugins (go-plugin's) close the connection instead.
    """
    call = channel.request(_SHUTDOWN, Cardinality.UNARY_UNARY, Empty, Empty)
    async with call.count_apart() as stream:
        await stream.send_message(Empty(), end=True)
        await stream.recv_message()
