"""How long something gets to end, when others of its kind end at the same time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import anyio
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Generator

Kind = Literal["process", "session"]

# What the end of one may take of a core: an interpreter takes some 0.06 s to clear up where it is
# fast, and the hundred plugins of a host that stops share its cores.
SECONDS_OF_A_CORE = 0.2


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Wait:
    """One block, and how many others there were in the time that it would have had alone."""

    __slots__ = ("began", "others", "scope", "seconds")

    def __init__(self, seconds: float, *, shield: bool) -> None:
        self.seconds = seconds
        self.began = anyio.current_time()
        self.scope = anyio.CancelScope(deadline=self.began + seconds, shield=shield)
        self.others = 0

    def count(self, others: int) -> None:
        """There are so many other blocks now."""
        if anyio.current_time() <= self.began + self.seconds:
            self.others = max(self.others, others)
        share = max(0, self.others + 1 - cores()) * SECONDS_OF_A_CORE / cores()
        self.scope.deadline = max(self.scope.deadline, self.began + self.seconds + share)

    def go_on(self) -> None:
        """One of the others has ended: the machine gets on with them."""
        latest = self.began + self.seconds * (1 + self.others / cores())
        self.scope.deadline = max(
            self.scope.deadline, min(anyio.current_time() + self.seconds, latest)
        )


_waiting: RunVar[dict[Kind, set[_Wait]]] = RunVar("what is to end")


@contextmanager
def patience(seconds: float, kind: Kind, *, shield: bool = False) -> Generator[anyio.CancelScope]:
    """Give the block so many seconds to see something end, more if there are many such blocks.

    Each block of the kind beyond the number of cores adds its share to the time of all of them; and
    as long as one of them sees its end, the others go on waiting, up to a bound that their number
    sets.

    Yields:
        The scope, which tells whether the time was not enough.
    """
    kinds = _waiting.get(None)
    if kinds is None:
        kinds = {}
        _waiting.set(kinds)
    waiting = kinds.setdefault(kind, set())
    mine = _Wait(seconds, shield=shield)
    with mine.scope:
        waiting.add(mine)
        for one in waiting:
            one.count(len(waiting) - 1)
        try:
            yield mine.scope
        finally:
            waiting.discard(mine)
            if not mine.scope.cancel_called:
                for one in waiting:
                    one.go_on()
