"""Hashing files."""

from __future__ import annotations

import os
import stat
from typing import IO, TYPE_CHECKING

from pyvider_rpcplugin.exception import SecurityError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK = 1 << 20


def open_file(path: str) -> IO[bytes]:
    """Open a file to hash.

    Raises:
        SecurityError: It cannot be read, or is no regular file.
    """
    try:
        # A pipe must not make the host wait for who writes into it.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _unreadable(path, reason) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _unreadable(path, "it is no regular file")
    return open(number, "rb", buffering=0)


def _unreadable(path: str, reason: str) -> SecurityError:
    msg = f"cannot take the checksum of {path}: {reason}"
    return SecurityError(msg, "Each file that is checked has to be readable.", phase="launch")


def file_digest(file: IO[bytes], algorithm: str) -> bytes:
    """Hash a file from its beginning. Takes time: to be done in a thread."""
    import hashlib  # noqa: PLC0415 - loads OpenSSL's hashes, which most starts do without

    hashed = hashlib.new(algorithm)
    file.seek(0)
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
    return hashed.digest()


def combined(digests: Sequence[bytes], algorithm: str) -> bytes:
    """The one digest for all files."""
    if len(digests) == 1:
        return digests[0]
    import hashlib  # noqa: PLC0415 - likewise

    return hashlib.new(algorithm, b"".join(digests)).digest()
