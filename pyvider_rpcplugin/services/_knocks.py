"""Which stream of a shared connection is whose: both sides agree on it by knocking.

Who dials knocks under a number; who serves it answers, and takes the next stream that the other
side opens for that number. Sans-I/O: whoever calls says what time it is.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from ._mailboxes import WINDOW
from ._messages import ConnInfo, Knock

# Knocks that came before their service; the other side may send what it likes.
_MOST_EARLY = 1024
_MOST_EXPECTED = 1024


class Doors:
    """The serving side: the numbers that are served, and the streams that are expected."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._early: OrderedDict[int, float] = OrderedDict()
        self._expected: deque[tuple[int, float]] = deque()

    def open(self, service_id: int, now: float) -> ConnInfo | None:
        """Serve a number from now on; gives the answer to a knock that came before."""
        self._open.add(service_id)
        until = self._early.pop(service_id, 0.0)
        return self._answer(service_id, now) if until > now else None

    def close(self, service_id: int) -> None:
        """Serve a number no longer."""
        self._open.discard(service_id)

    def knocked(self, service_id: int, now: float) -> ConnInfo | None:
        """Take a knock; gives the answer, unless it has to wait for its service."""
        if service_id in self._open:
            return self._answer(service_id, now)
        while self._early and next(iter(self._early.values())) <= now:
            self._early.popitem(last=False)
        if len(self._early) >= _MOST_EARLY:
            return _refusal(service_id, "too many knocks wait for their services")
        self._early[service_id] = now + WINDOW
        self._early.move_to_end(service_id)
        return None

    def _answer(self, service_id: int, now: float) -> ConnInfo:
        if len(self._expected) >= _MOST_EXPECTED:
            return _refusal(service_id, "too many streams are expected")
        # Before the answer leaves: the stream may come as soon as the other side has it.
        self._expected.append((service_id, now + WINDOW))
        return ConnInfo(service_id, knock=Knock(knock=True, ack=True))

    def stream_opened(self, now: float) -> int | None:
        """Say whose the stream is that the other side has opened; None: nobody knocked for it."""
        while self._expected:
            service_id, until = self._expected.popleft()
            if until > now:
                return service_id
        return None


def _refusal(service_id: int, error: str) -> ConnInfo:
    return ConnInfo(service_id, knock=Knock(knock=True, ack=True, error=error))
