"""What a peer may make us hold and do before the connection is closed with ENHANCE_YOUR_CALM.

Sans-I/O, and no clock either: `FloodGuard` counts between two calls of `refresh`, and whoever owns
the connection calls that about once a second while frames are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ._errors import ConnectionFault, ErrorCode

TINY_WINDOW_UPDATE = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one connection; the defaults are far above what an honest peer needs.

    Attributes:
        header_list_size: Octets of one decoded header section (announced to the peer as
            SETTINGS_MAX_HEADER_LIST_SIZE).
        header_fields: Fields of one header section.
        header_block_size: Octets of one encoded header block.
        continuation_frames: CONTINUATION frames of one header block.
        idle_frames: Frames that move no call forward (PING, SETTINGS, empty DATA, PRIORITY, tiny
            WINDOW_UPDATE, unknown types) between two refreshes, beyond one for each frame that
            does.
        resets: Streams that end early by the peer's doing between two refreshes (RFC 9113,
            section 10.5; the attack is known as rapid reset).
    """

    header_list_size: int = 65_536
    header_fields: int = 512
    header_block_size: int = 65_536
    continuation_frames: int = 16
    idle_frames: int = 1000
    resets: int = 2000


@final
class FloodGuard:
    """Counts a peer's frames that cost us work and bring no call forward."""

    __slots__ = ("_limits", "idle", "resets")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.idle = 0
        self.resets = 0

    @property
    def counting(self) -> bool:
        """Whether anything was counted since the last refresh."""
        return self.idle > 0 or self.resets > 0

    def refresh(self) -> None:
        """Begin a new interval; call it about once a second while `counting`."""
        self.idle = 0
        self.resets = 0

    def useful(self) -> None:
        """A frame that moves a call forward: it pays for one that does not."""
        if self.idle > 0:
            self.idle -= 1

    def count_idle(self, what: str) -> None:
        """One more frame that moves nothing.

        Raises:
            ConnectionFault: That was one too many.
        """
        self.idle += 1
        if self.idle > self._limits.idle_frames:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"too many frames that do nothing (now {what})"
            )

    def count_reset(self) -> None:
        """One more stream that ended early by the peer's doing.

        Raises:
            ConnectionFault: That was one too many.
        """
        self.resets += 1
        if self.resets > self._limits.resets:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")
