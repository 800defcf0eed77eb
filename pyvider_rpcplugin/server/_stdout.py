"""The standard output of a plugin process: the handshake line, and nothing else."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Generator

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def guarded_stdout() -> Generator[int]:
    """Point descriptor 1 at the standard error, and yield what it was.

    Whatever the program and its libraries print then lands in the host's log rather than in the
    middle of the handshake, be it written by Python, by C or by a child process.

    Raises:
        HandshakeError: There is no standard output.
    """
    if sys.__stdout__ is None:
        # Whatever has descriptor 1 now, it is something that was opened later.
        msg = "the standard output is closed: the host cannot be told where to connect"
        raise HandshakeError(msg, phase="handshake")
    saved = os.dup(_STDOUT)
    try:
        # In this order: what the program printed before goes where the rest will go.
        os.dup2(_STDERR, _STDOUT)
        _flush()
        yield saved
    finally:
        _flush()
        os.dup2(saved, _STDOUT)
        os.close(saved)


def write_line(descriptor: int, line: str) -> None:
    """Write the whole handshake line.

    Raises:
        HandshakeError: Nobody reads it: the host has gone.
    """
    data = line.encode()
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as exc:
        msg = "the handshake line could not be written: the host has gone"
        raise HandshakeError(msg, phase="handshake") from exc


def _flush() -> None:
    if sys.stdout is not None:
        # A closed or broken stdout has nothing that could be saved.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
