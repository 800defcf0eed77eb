"""How many plugins start at a time, and when a failed start is worth another."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import RunVar

from pyvider_rpcplugin._patience import cores

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from pyvider_rpcplugin.config import Settings

# Twenty interpreters that start at once on two cores take each other's time, and then none of them
# is up before its handshake timeout.
STARTS_PER_CORE = 2

_turns: RunVar[anyio.Semaphore] = RunVar("pyvider_rpcplugin.starts")


@asynccontextmanager
async def turn_to_start() -> AsyncGenerator[Callable[[], None]]:
    """Wait until this plugin may start, and yield what says that it has; leaving says so too."""
    turns = _turns.get(None)
    if turns is None:
        turns = anyio.Semaphore(STARTS_PER_CORE * cores())
        _turns.set(turns)
    await turns.acquire()
    held = True

    def done() -> None:
        nonlocal held
        if held:
            held = False
            turns.release()

    try:
        yield done
    finally:
        done()


class Retries:
    """Counts the starts of one session, and says how long to wait before the next."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failed = 0
        self._end = anyio.current_time() + settings.client_retry_total_timeout_s

    @property
    def seconds_left(self) -> float:
        """What is left for all further attempts together."""
        return max(0.0, self._end - anyio.current_time())

    def wait_longer(self, seconds: float) -> None:
        """Do not count a time in which this plugin waited for the start of others."""
        self._end += seconds

    def next_pause(self) -> float | None:
        """Count a failure; return the seconds to wait before another attempt, or None for no more."""
        settings = self._settings
        if not settings.client_retry_enabled:
            return None
        self._failed += 1
        if self._failed > settings.client_max_retries:
            return None
        # The exponent is bounded because a setting allows more attempts than floats have powers.
        backoff = settings.client_initial_backoff_ms * 2.0 ** min(self._failed - 1, 63)
        import random  # noqa: PLC0415 - most plugins start at the first attempt

        jitter = random.uniform(0, settings.client_retry_jitter_ms)  # noqa: S311 - no secret
        pause = (min(backoff, settings.client_max_backoff_ms) + jitter) / 1000
        return pause if pause < self.seconds_left else None
