"""Compressed messages (gRPC over HTTP/2, "Message Encoding")."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PIECE_SIZE = 1 << 18
# To unpack so much, and to pack the less, takes a millisecond at most.
_SMALL_SIZE = 1 << 17
LARGE_SIZE = 1 << 15


class MessageEncoding(msgspec.Struct, frozen=True):
    """One way to compress messages: its name on the wire, and zlib's window parameter."""

    name: str
    window_bits: int

    def compress(self, data: bytes, check: Callable[[], object] = bool) -> bytes:
        """Compress one message.

        Args:
            data: Its octets.
            check: Called between pieces. What it raises, this raises.
        """
        compressor = zlib.compressobj(wbits=self.window_bits)
        if len(data) <= _PIECE_SIZE:
            return compressor.compress(data) + compressor.flush()
        view = memoryview(data)
        pieces = []
        for at in range(0, len(view), _PIECE_SIZE):
            check()
            pieces.append(compressor.compress(view[at : at + _PIECE_SIZE]))
        pieces.append(compressor.flush())
        return b"".join(pieces)

    def decompress(self, data: bytes, limit: int, check: Callable[[], object] = bool) -> bytes:
        """Decompress one message.

        Args:
            data: What came.
            limit: Octets of the largest message; -1: no limit.
            check: Called between pieces. What it raises, this raises.

        Raises:
            OverflowError: It is larger than `limit` octets; no more than that was made.
            ValueError: It is malformed.
        """
        decompressor = zlib.decompressobj(wbits=self.window_bits)
        # What is left of the input is copied for each piece of output: so it goes in in pieces too.
        view = memoryview(data)
        at = size = 0
        pieces = []
        try:
            while not decompressor.eof:
                check()
                rest: bytes | memoryview = decompressor.unconsumed_tail
                if not rest:
                    rest = view[at : at + _PIECE_SIZE]
                    at += _PIECE_SIZE
                room = _PIECE_SIZE if limit < 0 else min(_PIECE_SIZE, limit + 1 - size)
                piece = decompressor.decompress(rest, room)
                if not piece and not rest:
                    break  # It has all of the input, and makes nothing more of it.
                pieces.append(piece)
                size += len(piece)
                if 0 <= limit < size:
                    msg = f"a compressed message of more than {limit} octets"
                    raise OverflowError(msg)
        except zlib.error as error:
            msg = f"a message that is no valid {self.name}: {error}"
            raise ValueError(msg) from None
        if not decompressor.eof or decompressor.unused_data or at < len(view):
            msg = f"a message that is no complete {self.name}"
            raise ValueError(msg)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def decompress_small(self, data: bytes, limit: int) -> bytes | None:
        """Decompress one message if that takes no time to speak of; None if it would take more.

        Raises:
            OverflowError: It is larger than `limit` octets; no more than that was made.
            ValueError: It is malformed.
        """
        if len(data) > _SMALL_SIZE:
            return None
        most = min(limit, _SMALL_SIZE) if limit >= 0 else _SMALL_SIZE
        decompressor = zlib.decompressobj(wbits=self.window_bits)
        try:
            message = decompressor.decompress(data, most + 1)
        except zlib.error:
            return self.decompress(data, most)  # which says what is wrong
        if len(message) > most != limit:
            return None
        if decompressor.eof and len(message) <= most and not decompressor.unused_data:
            return message
        return self.decompress(data, most)  # likewise


ENCODINGS = {
    encoding.name: encoding
    for encoding in (MessageEncoding("deflate", 15), MessageEncoding("gzip", 31))
}
ACCEPTED = ",".join(("identity", *ENCODINGS))


def unpacking_error(error: OverflowError | ValueError) -> GRPCError:
    """What the call of a message gets that `MessageEncoding.decompress` does not take."""
    too_large = isinstance(error, OverflowError)
    return GRPCError(Status.RESOURCE_EXHAUSTED if too_large else Status.INTERNAL, str(error))


def accepted(values: Iterable[str]) -> frozenset[str]:
    """The names in the values of grpc-accept-encoding fields."""
    return frozenset(name.strip() for value in values for name in value.split(","))
