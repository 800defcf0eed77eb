"""What the broker remembers: the numbers it gave out, and what the other side has announced.

Sans-I/O: no awaits and no clock here; whoever calls says what time it is.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from ._messages import ConnInfo

# An announcement that nobody asks for within so many seconds is forgotten, as both sides agree.
WINDOW = 5.0
# The other side may announce what it likes, and nobody may ever ask for it.
MOST_ANNOUNCED = 1024
_LONGEST_ADDRESS = 1024
_NETWORKS = ("unix", "tcp")
_LARGEST_ID = 0xFFFF_FFFF


class Unreadable(msgspec.Struct, frozen=True):
    """A message of the control stream that is none."""

    reason: str


class Heard:
    """The type of what the control stream receives: one bad message must not end the stream."""

    @staticmethod
    def FromString(data: bytes) -> ConnInfo | Unreadable:  # noqa: N802 - protobuf's name
        """Decode a message, or say why it is none."""
        try:
            return ConnInfo.FromString(data)
        except ValueError as exc:
            return Unreadable(f"{len(data)} bytes that are no ConnInfo: {exc}")


class Announced(msgspec.Struct):
    """What waits in a mailbox.

    Attributes:
        info: Where the service is.
        until: When this is forgotten.
        fault: Why nobody can connect there; None if somebody may try.
    """

    info: ConnInfo
    until: float
    fault: str | None


class Mailboxes:
    """One slot for each number of the other side, emptied by who dials it, or by time."""

    def __init__(self, *, networks: tuple[str, ...] = _NETWORKS) -> None:
        self._networks = networks
        # All of them live equally long, so the oldest is always the first to go.
        self._slots: OrderedDict[int, Announced] = OrderedDict()
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._slots)

    def next_id(self) -> int:
        """Give out the next number of this side: 1, 2, and so on."""
        self._last_id = self._last_id % _LARGEST_ID + 1
        return self._last_id

    def put(self, heard: ConnInfo | Unreadable, now: float) -> str | None:
        """Keep what the other side has announced.

        Returns:
            What is wrong with it, for the log; None if nothing is.
        """
        if isinstance(heard, Unreadable):
            return heard.reason
        if heard.knock is not None:
            return f"a knock on service {heard.service_id}, or an answer to one, without reason"
        self._forget(now)
        if heard.service_id in self._slots:
            return f"service {heard.service_id} is announced again, and has not been dialled yet"
        if len(self._slots) >= MOST_ANNOUNCED:
            return f"service {heard.service_id} is dropped: {MOST_ANNOUNCED} others wait already"
        fault = self._fault(heard)
        if fault is not None:
            # Without the address, which may be long, and is of no use.
            heard = ConnInfo(heard.service_id)
        self._slots[heard.service_id] = Announced(heard, now + WINDOW, fault)
        return fault and f"service {heard.service_id}: {fault}"

    def take(self, service_id: int, now: float) -> Announced | None:
        """Take what was announced under this number, if it still counts: once."""
        self._forget(now)
        return self._slots.pop(service_id, None)

    def clear(self) -> None:
        """Forget everything: what announced it is gone."""
        self._slots.clear()

    def _forget(self, now: float) -> None:
        while self._slots:
            oldest = next(iter(self._slots.values()))
            if oldest.until > now:
                return
            self._slots.popitem(last=False)

    def _fault(self, info: ConnInfo) -> str | None:
        if not self._networks:
            return "nothing is announced where all goes over one connection"
        if info.network not in self._networks:
            known = " and ".join(self._networks)
            return f"the network {info.network[:40]!r} is unknown; known are {known}"
        if not info.address or "\0" in info.address or len(info.address) > _LONGEST_ADDRESS:
            return f"{info.address[:80]!r} is no address"
        return None
