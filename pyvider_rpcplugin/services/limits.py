"""How often a plugin may be called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from pyvider_rpcplugin.rpc import InterceptedCall

__all__ = ["RateLimit"]


class RateLimit:
    """An interceptor that lets so many calls begin per second, and refuses the others.

    A refused call ends with RESOURCE_EXHAUSTED, and costs hardly anything.

    Args:
        rate: Calls per second, in the long run.
        burst: How many may begin at once after a pause.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._counted_at: float | None = None

    async def __call__(self, call: InterceptedCall) -> None:
        """Count a call.

        Raises:
            GRPCError: RESOURCE_EXHAUSTED, there are too many.
        """
        now = anyio.current_time()
        if self._counted_at is not None:
            self._left = min(self._burst, self._left + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._left < 1:
            pause = (1 - self._left) / self._rate
            message = f"too many calls: {self._rate:g} per second are taken, try in {pause:.3g} s"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, message)
        self._left -= 1
