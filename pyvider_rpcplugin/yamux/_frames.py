"""The header that every frame begins with, and that all but Data consist of."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

HEADER = struct.Struct("!BBHII")  # version, type, flags, stream, length
HEADER_SIZE: int = HEADER.size
VERSION = 0


class FrameType(IntEnum):
    """What a frame is."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """What else a frame says."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAwayCode(IntEnum):
    """Why no new streams are accepted."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def header(kind: FrameType, flags: int, stream_id: int, length: int) -> bytes:
    """Write a header; `length` means something else in each type of frame."""
    return HEADER.pack(VERSION, kind, flags, stream_id, length)
