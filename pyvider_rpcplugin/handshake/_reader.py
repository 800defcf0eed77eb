"""Finds the handshake line in the bytes that a plugin writes to its standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import HandshakeError
from pyvider_rpcplugin.handshake._line import EXPECTED, is_handshake_attempt
from pyvider_rpcplugin.logs import readable

if TYPE_CHECKING:
    from pyvider_rpcplugin.exception import PluginExit

NOISE_LIMIT = 1024 * 1024
"""How many octets a plugin may print before its handshake line."""
# So long may a line be beyond that: whether it is noise can only be told at its end.
_LONGEST_LINE = 64 * 1024


class HandshakeReader:
    """Takes a plugin's output in pieces of any size, until the handshake line is in it.

    Lines that are no handshake line and are not meant as one are noise: :meth:`feed` gives them
    back for the log. A line that is meant as one but wrong is found like a right one, and
    ``parse_handshake_line`` says what is wrong with it. How the bytes are cut into pieces makes
    no difference to what is found.

    Args:
        limit: How many bytes of noise are taken.

    """

    def __init__(self, limit: int = NOISE_LIMIT) -> None:
        self._line: str | None = None
        self._limit = limit
        self._noise = 0
        self._noise_lines = 0
        self._last_noise = b""
        self._pending = bytearray()
        self._leftover = bytearray()

    @property
    def line(self) -> str | None:
        """The handshake line without its end; ``None`` until it is found."""
        return self._line

    @property
    def leftover(self) -> bytes:
        """What came after the line: output of the running plugin."""
        return bytes(self._leftover)

    @property
    def seen(self) -> str:
        """What came instead of a handshake line, as the end of a sentence; for error messages."""
        count, last = self._noise_lines, self._last_noise
        if self._pending.strip():
            count, last = count + 1, bytes(self._pending)
        if not count:
            return "it wrote nothing to its standard output"
        text = repr(last[-200:].decode("utf-8", "replace").strip())
        shown = text if len(text) <= 160 else f"{text[:157]}..."
        return f"it wrote {shown}" + (f" as the last of {count} lines" if count > 1 else "")

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes.

        Returns:
            The lines of noise in them, without their ends. When ``line`` is no longer ``None``,
            the caller goes on with that; later bytes are all left over.

        Raises:
            HandshakeError: There is more noise than the limit. The reader is of no use then.
        """
        if self.line is not None:
            self._leftover += data
            return []
        noise: list[bytes] = []
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            self._pending += data[at:end]
            at = end + 1
            noise += self._take_line()
            if self._line is not None:
                self._leftover += data[at:]
                return noise
        self._pending += data[at:]
        self._check_line_length()
        return noise

    def feed_eof(self) -> list[bytes]:
        """Say that the output has ended: a last line needs no newline then.

        Returns:
            The last line, if it is noise. If ``line`` is ``None`` after this, there is no
            handshake line, and :meth:`failure` says what to raise.
        """
        if self.line is not None or not self._pending:
            return []
        return self._take_line()

    def failure(self, exit: PluginExit | None = None) -> HandshakeError:  # noqa: A002 - as the error's own
        """The error for an output that ended without a handshake line.

        Args:
            exit: How the plugin ended, if it has.
        """
        ended = "ended its output" if exit is None else exit.describe()
        tail = () if exit is None else exit.last_lines(3)
        if self._noise_lines:
            message = f"unrecognized message from the plugin: {self.seen}, then {ended}"
            hint = EXPECTED
        else:
            message = f"the plugin {ended} without a handshake line: {self.seen}"
            hint = _advice(exit)
        return HandshakeError(
            message,
            "\n".join((hint, *(f"stderr: {readable(line)}"[:300] for line in tail))),
            phase="handshake",
            exit=exit,
        )

    def _take_line(self) -> list[bytes]:
        """Decide on the line that is pending; gives it back if it is noise."""
        self._check_line_length()
        raw = bytes(self._pending)
        self._pending.clear()
        text = raw.decode("utf-8", "surrogateescape")
        # Progress displays go back to the start of their line and leave it there unfinished.
        before, _, candidate = text.strip().rpartition("\r")
        if is_handshake_attempt(candidate):
            self._line = candidate.strip()
            noise = before.encode("utf-8", "surrogateescape")
            return [noise] if noise else []
        self._noise += len(raw) + 1
        if raw.strip():
            self._noise_lines += 1
            self._last_noise = raw
        if self._noise > self._limit:
            raise self._too_much()
        return [raw] if raw.strip() else []

    def _check_line_length(self) -> None:
        if self._noise + len(self._pending) > self._limit + _LONGEST_LINE:
            raise self._too_much()

    def _too_much(self) -> HandshakeError:
        message = f"no handshake line in the first {self._limit} bytes of the plugin: {self.seen}"
        return HandshakeError(message, EXPECTED, phase="handshake")


def _advice(exit: PluginExit | None) -> str:  # noqa: A002 - as the error's own
    """What to look at, by how a plugin ended that wrote nothing."""
    if exit is None or exit.status is None:
        return "Does the command start a plugin?"
    if exit.status == 0:
        return (
            "Does the program serve? In Python: plugin_server(...).run(), below "
            'if __name__ == "__main__":'
        )
    if any("can't open file" in line for line in exit.stderr_tail):
        return (
            "Paths in a command count from the host's working folder: Path(__file__).with_name(...)"
        )
    if any("No module named 'pyvider" in line for line in exit.stderr_tail):
        return "Is the command's interpreter the one that has this library? sys.executable is the host's."
    if any("This binary is a plugin" in line for line in exit.stderr_tail):
        return "So plugins in Go greet a cookie that is not theirs: PLUGIN_MAGIC_COOKIE_KEY and _VALUE."
    if not exit.stderr_tail:
        return "It said nothing on its standard error, either; `pyvider-rpcplugin doctor` looks closer."
    return "Its standard error says why; `pyvider-rpcplugin doctor` with the same command looks closer."
