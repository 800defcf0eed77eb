"""A folder for a plugin's sockets, which vanishes however the plugin ends."""

from __future__ import annotations

import contextlib
import errno
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

_PREFIX = "rpcplugin-host-"
_LOCK = "lock"
# What a plugin's socket is called inside is the plugin's choice; Go's and ours are shorter.
_ROOM_FOR_NAME = 28


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
    try:
        folder, lock = _make(parent)
    except OSError as exc:
        logger.debug("client.folder.none parent=%s reason=%s", parent, exc.strerror)
        yield None
        return
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _make(parent: str) -> tuple[str, int]:
    """Make the folder and lock it; return its path and the lock's descriptor."""
    name = f"{_PREFIX}{os.urandom(6).hex()}"
    place = parent or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the folder in it is private
    if len(os.fsencode(place)) + len(name) + _ROOM_FOR_NAME > LONGEST_PATH:
        if parent:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        place = "/tmp"  # noqa: S108 - as above
    _sweep(place)
    folder = os.path.join(os.path.abspath(place), name)
    os.mkdir(folder, 0o700)
    path = os.path.join(folder, _LOCK)
    # The file gets its name only when it is locked: before that, somebody else's sweep would
    # take the folder for one that was left.
    lock = os.open(path + "-", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(path + "-", path)
    except OSError:
        os.close(lock)
        raise
    return folder, lock


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
        # Gone already, or in use: none of our business.
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(entry.path)
            finally:
                os.close(lock)


def _remove(folder: str) -> None:
    """Remove the folder with its lock and the sockets in it; nothing else belongs there."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name == _LOCK or stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                os.unlink(entry.path)
        os.rmdir(folder)
