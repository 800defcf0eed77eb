"""The checksum of the program that is about to be started."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from pyvider_rpcplugin.exception import ConfigError, SecurityError
from pyvider_rpcplugin.process._hash import combined, file_digest, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SecureConfig"]

# Those for which nobody can make a second file with the same digest.
_ALGORITHMS = (
    "sha256",
    "sha384",
    "sha512",
    "sha3_256",
    "sha3_384",
    "sha3_512",
    "blake2b",
    "blake2s",
)


@final
@dataclass(frozen=True, slots=True, init=False)
class SecureConfig:
    """What a plugin's files have to be for a host to start it.

    The digest of one file is that of its content, as `sha256sum` prints it. The digest of several
    files is that of their digests (the bytes, not the text), in the order of the files.

    Attributes:
        algorithm: The name of the hash function.
        digest: What it gives.
        files: The files; None for the program of the command, and with `python plugin.py` the
            script after it. A relative path counts from the plugin's working folder.
    """

    algorithm: str
    digest: bytes
    files: tuple[str, ...] | None

    def __init__(
        self,
        algorithm: str,
        digest: str | bytes,
        files: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        """Say what the files have to be.

        Args:
            algorithm: sha256, sha384, sha512, sha3_256, sha3_384, sha3_512, blake2b or blake2s.
            digest: What the files have, in hexadecimal or as bytes.
            files: The files, if it is not the program of the command.

        Raises:
            ConfigError: There is no such algorithm, the digest is not one of it, or `files` is no
                list of files.
        """
        _check_algorithm(algorithm)
        object.__setattr__(self, "algorithm", algorithm)
        object.__setattr__(self, "digest", _checked_digest(algorithm, digest))
        object.__setattr__(self, "files", _checked_files(files))

    def __repr__(self) -> str:
        files = "" if self.files is None else f", files={list(self.files)!r}"
        return f"SecureConfig({self.algorithm!r}, {self.digest.hex()!r}{files})"

    @classmethod
    def of(
        cls,
        command: Sequence[str | os.PathLike[str]],
        algorithm: str = "sha256",
        *,
        files: Sequence[str | os.PathLike[str]] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> SecureConfig:
        """Take the digest of the files as they are now: to be kept, for starts later on.

        Args:
            command: What will be started.
            algorithm: The hash function.
            files: The files, if it is not the program of the command.
            cwd: The plugin's working folder.

        Raises:
            ConfigError: There is no such algorithm, or the command does not tell which files.
            SecurityError: A file cannot be read.
            TransportError: There is no such program.
        """
        from pyvider_rpcplugin.process._verify import (  # noqa: PLC0415 - not for mere values
            files_of,
        )

        _check_algorithm(algorithm)
        given = _checked_files(files)
        folder = None if cwd is None else os.fspath(cwd)
        paths = files_of(command, given, os.environ, folder)
        digests: list[bytes] = []
        for path in paths:
            with open_file(path) as file:
                digests.append(file_digest(file, algorithm))
        return cls(algorithm, combined(digests, algorithm), given)

    def check(self, digests: Sequence[bytes]) -> None:
        """Compare the digests of the files with the one that was given.

        Raises:
            SecurityError: They differ.
        """
        if not hmac.compare_digest(combined(digests, self.algorithm), self.digest):
            msg = f"the plugin's files do not have the {self.algorithm} checksum that they should"
            hint = "They were changed after the checksum was taken, or it is that of other files."
            raise SecurityError(msg, hint, phase="launch")


def _check_algorithm(algorithm: object) -> None:
    if algorithm not in _ALGORITHMS:
        msg = f"{algorithm!r} is no algorithm for a checksum"
        raise ConfigError(msg, f"Accepted are {', '.join(_ALGORITHMS)}.", phase="settings")


def _checked_digest(algorithm: str, digest: object) -> bytes:
    data = digest if isinstance(digest, bytes) else None
    if isinstance(digest, str):
        try:
            data = bytes.fromhex(digest.strip())
        except ValueError:
            data = None
    if data is None:
        msg = "the digest of a checksum is neither bytes nor hexadecimal text"
        raise ConfigError(msg, phase="settings")
    size = hashlib.new(algorithm).digest_size
    if len(data) != size:
        msg = f"a digest of {algorithm} has {size} bytes, not {len(data)}"
        raise ConfigError(msg, phase="settings")
    return data


def _checked_files(files: object) -> tuple[str, ...] | None:
    if files is None:
        return None
    if isinstance(files, str | bytes | os.PathLike) or not hasattr(files, "__iter__"):
        msg = f"the files of a checksum are a list of paths, not {type(files).__name__}"
        raise ConfigError(msg, phase="settings")
    try:
        names = tuple(os.fsdecode(file) for file in files)
    except TypeError:
        names = ()
    if not names:
        msg = "the files of a checksum are a list of at least one path"
        raise ConfigError(msg, "Leave it out for the program of the command.", phase="settings")
    return names
