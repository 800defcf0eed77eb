"""What a peer may make us hold and do before the connection is closed with ENHANCE_YOUR_CALM.

Sans-I/O, and no clock either: `FloodGuard` counts between two calls of `refresh`, and whoever owns
the connection calls that about once a second while frames are counted.
"""

from __future__ import annotations

from typing import final

import msgspec

from ._errors import ConnectionFault, ErrorCode

TINY_FRAME = 64
# What a header section over its bound counts for: it costs as much to read as many that are not.
OVERSIZED_SECTION = 50


class Limits(msgspec.Struct, frozen=True):
    """Bounds on one connection; the defaults are far above what an honest peer needs.

    Attributes:
        header_list_size: Octets of one decoded header section (announced to the peer as
            SETTINGS_MAX_HEADER_LIST_SIZE). More is the fault of its stream alone; four times as
            much is not decoded to its end, and ends the connection.
        header_fields: Fields of one header section; more is the fault of its stream.
        header_block_size: Octets of one encoded header block.
        continuation_frames: CONTINUATION frames of one header block.
        settings: Entries of one SETTINGS frame.
        idle_frames: Frames that move no call forward (PING, SETTINGS, WINDOW_UPDATE, empty DATA,
            PRIORITY, unknown types, what comes for closed streams) between two refreshes, beyond
            those that are due: see `FloodGuard`.
        resets: Streams that end early by the peer's doing between two refreshes, beyond one for
            each that ends well (RFC 9113, section 10.5; the attack is known as rapid reset).
    """

    header_list_size: int = 65_536
    header_fields: int = 512
    header_block_size: int = 131_072
    continuation_frames: int = 16
    settings: int = 128
    idle_frames: int = 1000
    resets: int = 2000


@final
class FloodGuard:
    """Counts a peer's frames that cost us work and bring no call forward.

    A frame that does bring one forward pays for one that does not, and content that we send for
    two: the peer gives its octets back to the stream and to the connection, and some peers do so
    for every single frame. What was paid is kept, since their answers may come much later, but
    not without bound: a long download must not entitle its receiver to a flood.
    """

    __slots__ = ("_floor", "_limits", "idle", "resets")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._floor = -100 * limits.idle_frames
        self.idle: int = 0
        self.resets: int = 0

    @property
    def counting(self) -> bool:
        """Whether anything was counted since the last refresh."""
        return self.idle > 0 or self.resets > 0

    def refresh(self) -> None:
        """Begin a new interval; call it about once a second while `counting`."""
        self.idle = min(self.idle, 0)
        self.resets = 0

    def useful(self, worth: int = 1) -> None:
        """A frame that moves a call forward: it pays for as many that do not."""
        self.idle -= worth

    def completed(self) -> None:
        """A stream that ended well: it pays for one that does not."""
        if self.resets > 0:
            self.resets -= 1

    def count_idle(self, what: str) -> None:
        """One more frame that moves nothing.

        Raises:
            ConnectionFault: That was one too many.
        """
        self.idle = max(self.idle, self._floor) + 1
        if self.idle > self._limits.idle_frames:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"too many frames that do nothing (now {what})"
            )

    def count_reset(self, worth: int = 1) -> None:
        """One more stream that ended early by the peer's doing; `worth` says for how many it counts.

        Raises:
            ConnectionFault: That was one too many.
        """
        self.resets += worth
        if self.resets > self._limits.resets:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")
