"""The messages of the stdio service."""

from __future__ import annotations

import enum

import msgspec

from ._wire import bytes_field, fields, number_field


class StdioChannel(enum.IntEnum):
    """Which of a plugin's two outputs."""

    STDOUT = 1
    STDERR = 2


class StdioData(msgspec.Struct, frozen=True):
    """`plugin.StdioData`: a piece of output. Of an unknown channel: a number that is not named."""

    channel: int = 0
    data: bytes = b""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name, which codecs call
        """Encode it."""
        return number_field(1, self.channel) + (bytes_field(2, self.data) if self.data else b"")

    @classmethod
    def FromString(cls, data: bytes) -> StdioData:  # noqa: N802
        """Decode it."""
        channel, content = 0, b""
        for number, value in fields(data):
            if number == 1 and isinstance(value, int):
                channel = value
            elif number == 2 and isinstance(value, bytes):
                content = value
        return cls(channel, content)
