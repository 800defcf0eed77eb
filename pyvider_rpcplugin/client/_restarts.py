"""When a plugin that has ended is started again. No clock, no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .supervision import RestartPolicy


class Restarts:
    """Counts restarts against a policy.

    Args:
        policy: What is allowed.
        share: How many plugins share it.
        random: Gives numbers from 0 up to 1.
    """

    def __init__(
        self, policy: RestartPolicy, *, share: int = 1, random: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._most = policy.max_restarts * share
        self._share = share
        self._random = random
        self._times: deque[float] = deque()

    def next_pause(self, now: float) -> float | None:
        """Count one restart, and return how long to wait before it; None: there were too many."""
        policy = self._policy
        if self.exhausted(now):
            return None
        before = len(self._times)
        self._times.append(now)
        try:
            pause = policy.initial_backoff * policy.multiplier ** (before // self._share)
        except OverflowError:
            pause = policy.max_backoff
        return min(pause, policy.max_backoff) * (1 + policy.jitter * (2 * self._random() - 1))

    def exhausted(self, now: float) -> bool:
        """Whether there may be no other restart for now."""
        while self._times and self._times[0] <= now - self._policy.window:
            self._times.popleft()
        return len(self._times) >= self._most

    def forget(self) -> None:
        """Begin anew."""
        self._times.clear()
