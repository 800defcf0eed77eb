"""Compressed messages (gRPC over HTTP/2, "Message Encoding")."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class MessageEncoding(msgspec.Struct, frozen=True):
    """One way to compress messages: its name on the wire, and zlib's window parameter."""

    name: str
    window_bits: int

    def compress(self, data: bytes) -> bytes:
        """Compress one message."""
        compressor = zlib.compressobj(wbits=self.window_bits)
        return compressor.compress(data) + compressor.flush()

    def decompress(self, data: bytes, limit: int) -> bytes:
        """Decompress one message.

        Raises:
            OverflowError: It is larger than `limit` octets (-1: none); no more than that was made.
            ValueError: It is malformed.
        """
        decompressor = zlib.decompressobj(wbits=self.window_bits)
        try:
            message = decompressor.decompress(data, 0 if limit < 0 else limit + 1)
        except zlib.error as error:
            msg = f"a message that is no valid {self.name}: {error}"
            raise ValueError(msg) from None
        if 0 <= limit < len(message):
            msg = f"a compressed message of more than {limit} octets"
            raise OverflowError(msg)
        if not decompressor.eof or decompressor.unused_data:
            msg = f"a message that is no complete {self.name}"
            raise ValueError(msg)
        return message


ENCODINGS = {
    encoding.name: encoding
    for encoding in (MessageEncoding("deflate", 15), MessageEncoding("gzip", 31))
}
ACCEPTED = ",".join(("identity", *ENCODINGS))


def accepted(values: Iterable[str]) -> frozenset[str]:
    """The names in the values of grpc-accept-encoding fields."""
    return frozenset(name.strip() for value in values for name in value.split(","))
