"""Where certificates and keys come from: PEM text in the setting itself, a `file://` URI, a path.

No message repeats what was read. A setting that carries a key's text in a damaged form may look
like a path; that is not repeated either.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple, final

from pyvider_rpcplugin.exception import SecurityError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["PemBlock", "PemSource", "decode", "is_one_der_element", "refused"]

_BEGIN = "-----BEGIN "
_URI = "file://"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/=_-]{40}")
# A bundle of all the authorities that browsers know is a fifth of this.
_LARGEST_FILE = 1 << 20


def refused(message: str, hint: str | None = None) -> SecurityError:
    """The one error that certificates and keys that are not acceptable end in."""
    return SecurityError(message, hint, phase="tls")


class PemBlock(NamedTuple):
    """One `-----BEGIN ...-----` to `-----END ...-----`."""

    label: str
    text: bytes
    body: bytes


@final
class PemSource:
    """One setting's value, and the file behind it if there is one.

    Args:
        setting: What errors call it.
        value: The PEM text, a `file://` URI, or a path.
    """

    __slots__ = ("_inline", "path", "setting")

    def __init__(self, setting: str, value: str | bytes | os.PathLike[str]) -> None:
        self.setting = setting
        self.path: str | None = None
        self._inline: bytes | None = None
        if isinstance(value, bytes):
            self._inline = value
            return
        text = os.fspath(value)
        if _BEGIN in text or "PRIVATE KEY" in text or "\n" in text.strip():
            self._inline = text.encode(errors="replace")
        elif text[: len(_URI)].lower() == _URI:
            self.path = self._path_of_uri(text)
        else:
            self.path = text

    def _path_of_uri(self, uri: str) -> str:
        from urllib.parse import unquote  # noqa: PLC0415 - few need it

        host, _, path = uri[len(_URI) :].partition("/")
        if host not in {"", "localhost"}:
            msg = f"{self.setting} names a file of another machine, {host!r}"
            raise refused(msg, "A file:// URI has three slashes: file:///etc/plugin/cert.pem.")
        path = unquote(path)
        return path if os.name == "nt" else f"/{path}"

    @property
    def label(self) -> str:
        """What to call it: the setting, and its file; never the text itself."""
        if self.path is None:
            return f"{self.setting} (inline PEM)"
        if self._may_be_a_secret(self.path):
            return f"{self.setting} (not shown: it looks like a part of a key, not like a path)"
        return f"{self.setting} ({_printable(self.path)})"

    @staticmethod
    def _may_be_a_secret(path: str) -> bool:
        """Whether it is likelier the text of a key without its first line than a path."""
        if path.startswith((os.sep, ".")) or not _BASE64_RUN.search(path):
            return False
        try:
            return not os.path.lexists(path)
        except ValueError:
            return True

    def __repr__(self) -> str:
        return f"<PemSource {self.label}>"

    def stamp(self) -> tuple[int, ...]:
        """What changes when the file does; empty without a file."""
        if self.path is None:
            return ()
        try:
            found = os.stat(self.path)
        except (OSError, ValueError):
            return (0,)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def read(self) -> bytes:
        """Read it.

        Raises:
            SecurityError: It cannot be read, is no regular file, or is empty.
        """
        data = self._inline if self._inline is not None else self._read_file(self.path or "")
        if not data.strip():
            msg = f"{self.label} is empty"
            raise refused(msg, "It has to hold PEM text.")
        return data

    def _read_file(self, path: str) -> bytes:
        try:
            # A pipe must not make the program wait for who writes into it.
            number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None
        try:
            mode = os.fstat(number).st_mode
            if not stat.S_ISREG(mode):
                kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
                msg = f"{self.label} is {kind}"
                raise refused(msg, "It has to be a file that holds PEM text.")
            with open(number, "rb", closefd=False) as file:
                data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise self._unreadable(error) from None
        finally:
            os.close(number)
        if len(data) > _LARGEST_FILE:
            msg = f"{self.label} is larger than {_LARGEST_FILE} bytes"
            raise refused(msg)
        return data

    def _unreadable(self, error: OSError | ValueError) -> SecurityError:
        reason = "not a path"
        if isinstance(error, OSError):
            if os.path.isdir(self.path or ""):  # some systems refuse to open one
                return refused(f"{self.label} is a directory", "It has to be a file.")
            reason = os.strerror(error.errno or 0).lower()
        hint = "Accepted is PEM text, a file:// URI, or the path of a file that this user may read."
        return refused(f"{self.label} cannot be read: {reason}", hint)

    def blocks(self, wanted: str, labels: Collection[str] = ()) -> list[PemBlock]:
        """Read it and split it.

        Args:
            wanted: What should be in it, for error messages.
            labels: The kinds of blocks to keep; all of them if there are none here.

        Raises:
            SecurityError: It cannot be read, or holds nothing of this kind.
        """
        data = self.read()
        found = [PemBlock(match[1].decode(), match[0], match[2]) for match in _BLOCK.finditer(data)]
        if len(found) != data.count(_BEGIN.encode()):
            msg = f"{self.label} is damaged or cut off: a PEM block in it has no end"
            raise refused(msg, "Each -----BEGIN ...----- needs its -----END ...-----.")
        kept = [block for block in found if not labels or block.label in labels]
        if kept:
            return kept
        if found:
            names = ", ".join(sorted({block.label for block in found}))
            msg = f"{self.label} holds no {wanted}, but: {names}"
            raise refused(msg)
        if data[:1] == b"\x30" and data[1:2] >= b"\x80":
            msg = f"{self.label} is DER, but PEM is expected"
            raise refused(msg, "openssl x509 (or pkey) -inform DER turns it into PEM.")
        msg = f"{self.label} holds no {wanted}: no PEM text is in it"
        raise refused(msg, f"PEM text begins with {_BEGIN}...-----.")


def _printable(path: str) -> str:
    return path if path.isprintable() and len(path) <= 200 else f"{path[:200]!r}..."


def decode(block: PemBlock) -> bytes | None:
    """The DER of a block; None if it is not base64."""
    text = b"".join(block.body.split())
    try:
        return binascii.a2b_base64(text, strict_mode=True) or None
    except binascii.Error:
        return None


def is_one_der_element(der: bytes) -> bool:
    """Whether this is one sequence in DER from its first byte to its last one."""
    if len(der) < 4 or der[0] != 0x30:
        return False
    length, begin = der[1], 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4:
            return False
        begin += count
        length = int.from_bytes(der[2:begin], "big")
    return begin + length == len(der)
