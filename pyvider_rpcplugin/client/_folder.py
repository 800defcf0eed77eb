"""A folder for a plugin's sockets, which vanishes however the plugin ends."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

from pyvider_rpcplugin.transport._path import LONGEST_PATH

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator

logger = logging.getLogger(__name__)

_PREFIX = "pyvider-rpcplugin-host-"
_LOCK = "lock"
# What a plugin's socket is called inside is the plugin's choice; Go's and ours are shorter.
_ROOM_FOR_NAME = 40


@contextlib.contextmanager
def socket_folder(parent: str) -> Generator[str | None]:
    """Make a folder that only this user may enter, for the length of a block.

    A plugin that is killed cannot remove its socket; its host can remove the folder. A host that is
    killed cannot either: then the next one does. It knows such a folder by its lock, which the
    system takes from a process that ends.

    Args:
        parent: Where to make it; "" for the temporary folder.

    Yields:
        The folder; None where none can be made. The plugin then has to find a place by itself.
    """
    if sys.platform == "win32":
        yield None
        return
    name = f"{_PREFIX}{os.urandom(6).hex()}"
    place = parent or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the folder in it is private
    if not parent and len(os.fsencode(place)) + len(name) + _ROOM_FOR_NAME > LONGEST_PATH:
        place = "/tmp"  # noqa: S108 - as above
    folder = os.path.join(os.path.abspath(place), name)
    try:
        _sweep(place)
        os.mkdir(folder, 0o700)
        lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        logger.debug("client.folder.none place=%s reason=%s", place, exc.strerror)
        yield None
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def remove_dead_socket(path: str) -> None:
    """Remove a socket file that a plugin has left, unless somebody listens on it again."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                return
    except OSError as exc:
        logger.debug("client.socket.left path=%s reason=%s", path, exc.strerror)


def _sweep(place: str) -> None:
    """Remove the folders of hosts that have ended without doing so."""
    for entry in os.scandir(place):
        if not entry.name.startswith(_PREFIX):
            continue
        # Not there yet, gone already, or somebody else's: none of our business.
        with contextlib.suppress(OSError):
            lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(entry.path)
            finally:
                os.close(lock)


def _remove(folder: str) -> None:
    """Remove the folder and the files in it; sockets and the lock are all that belongs there."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
