"""How many calls there were, and how they ended: plain numbers, added to as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

_OK = Status.OK


class CallCounts:
    """The calls of one channel, or of one server.

    Attributes:
        started: Those that have begun.
        succeeded: Those of them that have ended with OK.
        failed: Those that have ended otherwise, by their status.
    """

    __slots__ = ("failed", "started", "succeeded")

    def __init__(self) -> None:
        self.started: int = 0
        self.succeeded: int = 0
        self.failed: dict[Status, int] = {}

    def end(self, status: Status) -> None:
        """Count the end of a call."""
        if status is _OK:
            self.succeeded += 1
        else:
            self.failed[status] = self.failed.get(status, 0) + 1

    def refuse(self, status: Status) -> None:
        """Count a call that has ended before it had begun."""
        self.started += 1
        self.end(status)

    def as_fields(self) -> dict[str, object]:
        """What the fields of `CallStatistics` say."""
        failed = sum(self.failed.values())
        return {
            "calls_started": self.started,
            "calls_succeeded": self.succeeded,
            "calls_failed": {status.name: number for status, number in self.failed.items()},
            "calls_open": self.started - self.succeeded - failed,
        }


def total(counts: Iterable[CallCounts]) -> CallCounts:
    """The sum of several."""
    whole = CallCounts()
    for one in counts:
        whole.started += one.started
        whole.succeeded += one.succeeded
        for status, number in one.failed.items():
            whole.failed[status] = whole.failed.get(status, 0) + number
    return whole
