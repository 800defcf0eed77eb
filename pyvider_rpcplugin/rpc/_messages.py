"""Length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message").

Sans-I/O: no awaits here.
"""

from __future__ import annotations

from collections import deque
from typing import final

PREFIX_SIZE = 5
LARGEST_MESSAGE = 2**32 - 1


def message_prefix(size: int, *, compressed: bool = False) -> bytes:
    """The five octets in front of a message of `size` octets."""
    return ((compressed << 32) | size).to_bytes(PREFIX_SIZE, "big")


Chunk = bytes | bytearray | memoryview

# Frames up to this size are joined as they come in: as objects of their own they would take many
# times their octets, and a peer can send millions of them within a window.
_TINY_CHUNK = 32


class MessageTooLarge(Exception):
    """A message whose prefix announces more than is taken."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"received a message of {size} octets, at most {limit} are taken")


@final
class MessageBuffer:
    """Received octets of one direction of a call, cut into messages.

    Octets stay here, and on the account of flow control, until somebody takes the message that
    they belong to. Only while a task waits for a message that is still coming in are its octets
    given back early, for otherwise a message larger than the window would never arrive.

    Args:
        limit: Octets of the largest message; -1: no limit.
    """

    __slots__ = ("_chunks", "_head", "_need", "_position", "_size", "credited", "eof", "limit")

    def __init__(self, limit: int) -> None:
        # The first chunk, read up to `_position`: one may hold many messages.
        self._head: Chunk = b""
        self._position = 0
        # The chunks behind it; most calls never have any.
        self._chunks: deque[Chunk] | None = None
        self._size = 0
        self._need = PREFIX_SIZE
        self.limit: int = limit
        self.credited: int = 0  # octets at the front that were given back before they were taken
        self.eof: bool = False

    def append(self, data: bytes | memoryview) -> None:
        """Add what came in."""
        if not self._size:
            self._head = data
            self._position = 0
        elif data:
            self._append_chunk(data)
        self._size += len(data)

    def _append_chunk(self, data: bytes | memoryview) -> None:
        chunks = self._chunks
        if chunks is None:
            chunks = self._chunks = deque()
        if len(data) > _TINY_CHUNK:
            chunks.append(data)
        elif chunks and isinstance(chunks[-1], bytearray):
            chunks[-1] += data
        else:
            chunks.append(bytearray(data))

    @property
    def ready(self) -> bool:
        """Whether `take` has something to say: a message, the end, or an error."""
        if self.eof:
            return True
        if self._need == PREFIX_SIZE <= self._size:
            length = self._next_length()
            if 0 <= self.limit < length:
                return True
            self._need += length
        return PREFIX_SIZE <= self._need <= self._size

    def credit_all(self) -> int:
        """Mark all that is here as given back; return how many octets were not yet."""
        early = self._size - self.credited
        self.credited = self._size
        return early

    @property
    def partial(self) -> bool:
        """Whether a part of a message is in here."""
        return self._size > 0

    @property
    def holds_one(self) -> bool:
        """Whether exactly one message is in here, within the limit."""
        if self._size < PREFIX_SIZE:
            return False
        length = self._next_length()
        return self._size == PREFIX_SIZE + length and not 0 <= self.limit < length

    def _next_length(self) -> int:
        """The length in the next prefix, all of which is in."""
        while len(self._head) - self._position < PREFIX_SIZE:
            self._head = b"".join((self._head[self._position :], self._next_chunk()))
            self._position = 0
        position = self._position
        return int.from_bytes(self._head[position + 1 : position + PREFIX_SIZE], "big")

    def take(self) -> tuple[bool, bytes, int] | None:
        """The next message: whether it is compressed, its octets, and how many to give back.

        None if it is not complete.

        Raises:
            MessageTooLarge: It is larger than the limit. No more can be taken.
        """
        if self._size < PREFIX_SIZE:
            return None
        length = self._next_length()
        if 0 <= self.limit < length:
            raise MessageTooLarge(length, self.limit)
        size = PREFIX_SIZE + length
        if self._size < size:
            return None
        head, start = self._head, self._position
        compressed = head[start] != 0
        if len(head) - start >= size:
            message = bytes(head[start + PREFIX_SIZE : start + size])
            self._position = start + size
            if self._position == len(head) and self._chunks:
                self._head = self._next_chunk()
                self._position = 0
        else:
            message = self._join(size)
        self._size -= size
        self._need = PREFIX_SIZE
        early = min(self.credited, size)
        self.credited -= early
        return compressed, message, size - early

    def _join(self, size: int) -> bytes:
        """Remove `size` octets, which are in more than one chunk; return all but the prefix."""
        parts: list[Chunk] = [memoryview(self._head)[self._position + PREFIX_SIZE :]]
        size -= len(self._head) - self._position
        self._head, self._position = b"", 0
        while size:
            chunk = self._next_chunk()
            if len(chunk) > size:
                parts.append(memoryview(chunk)[:size])
                self._head, self._position = chunk, size
                break
            parts.append(chunk)
            size -= len(chunk)
        else:
            if self._chunks:
                self._head = self._next_chunk()
        return b"".join(parts)

    def _next_chunk(self) -> Chunk:
        if self._chunks is None:
            return b""
        return self._chunks.popleft()

    def clear(self) -> None:
        """Forget everything; nobody will take it."""
        self._chunks = None
        self._head, self._position = b"", 0
        self._size = self.credited = 0
