"""From chunks of bytes to lines of text. No I/O here."""

from __future__ import annotations

LONGEST_LINE = 65536

_CONTINUATION_MASK, _CONTINUATION = 0b1100_0000, 0b1000_0000


class LineSplitter:
    """Splits what a process writes into lines, whatever it writes.

    Args:
        longest: Lines with more bytes than this come in pieces, so that memory stays bounded.
    """

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Take the next chunk; give the lines that it completes, without their ends."""
        lines: list[str] = []
        first, *others = data.split(b"\n")
        self._rest += first
        for part in others:
            self._give_pieces(lines)
            lines.append(_text(self._rest.removesuffix(b"\r")))
            self._rest = bytearray(part)
        self._give_pieces(lines)
        return lines

    def flush(self) -> list[str]:
        """Give the last line, if it has no end."""
        rest, self._rest = self._rest, bytearray()
        return [_text(rest)] if rest else []

    def _give_pieces(self, lines: list[str]) -> None:
        while len(self._rest) > self._longest:
            end = self._longest
            # Do not cut a character in two: it has at most three bytes after its first one.
            for _ in range(3):
                if self._rest[end] & _CONTINUATION_MASK != _CONTINUATION or end <= 1:
                    break
                end -= 1
            lines.append(_text(self._rest[:end]))
            del self._rest[:end]


def _text(line: bytes | bytearray) -> str:
    return line.decode("utf-8", errors="replace")
