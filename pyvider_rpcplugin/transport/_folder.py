"""Folders for sockets, which are recognised when their makers ended without removing them."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time

if sys.platform != "win32":
    import fcntl

# What the names of all such folders begin with.
PREFIX = "rpcplugin-"
_LOCK = "lock"
# The lock's name until it is locked, and how many seconds old a folder has to be in which that has
# not happened: who makes one needs a moment.
_UNLOCKED = "lock-"
_OLD = 60.0


def new_name(kind: str = "") -> str:
    """Make up a name that nobody else comes up with."""
    return f"{PREFIX}{kind}{os.urandom(6).hex()}"


def make_locked(parent: str, name: str) -> tuple[str, int]:
    """Make a folder that only this user may enter, and lock it for as long as this process lives.

    Folders in the same place whose makers have ended are removed. They are known by their locks,
    which the system takes from a process that ends, however it does.

    Args:
        parent: Where to make it.
        name: Its name; of `new_name`, so that it can be recognised.

    Returns:
        Its path, and the descriptor that holds the lock.

    Raises:
        OSError: It cannot be made.
    """
    sweep(parent)
    folder = os.path.join(parent, name)
    os.mkdir(folder, 0o700)
    # The file gets its name only when it is locked: before that, somebody else's sweep would
    # take the folder for one that was left.
    path = os.path.join(folder, _UNLOCKED)
    lock = -1
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(path, os.path.join(folder, _LOCK))
    except OSError:
        if lock >= 0:
            os.close(lock)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.rmdir(folder)
        raise
    return folder, lock


def remove(folder: str) -> None:
    """Remove the folder with its lock and the sockets in it; nothing else belongs there.

    Raises:
        OSError: Something else is, or it cannot be removed.
    """
    for entry in os.scandir(folder):
        if entry.name in {_LOCK, _UNLOCKED} or stat.S_ISSOCK(
            entry.stat(follow_symlinks=False).st_mode
        ):
            os.unlink(entry.path)
    os.rmdir(folder)


def sweep(parent: str) -> None:
    """Remove the folders in there of processes that have ended without doing so."""
    try:
        entries = [entry for entry in os.scandir(parent) if entry.name.startswith(PREFIX)]
    except OSError:
        # Missing, which the caller sees next, or one that may be written to and not read.
        return
    for entry in entries:
        # Gone already, or in use: none of our business.
        with contextlib.suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            try:
                lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                # Whoever made it is just about to lock it, or has ended before that.
                if time.time() - found.st_mtime > _OLD:
                    remove(entry.path)
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(entry.path)
            finally:
                os.close(lock)
