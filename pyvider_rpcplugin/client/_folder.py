"""A folder for a plugin's sockets, which vanishes however the plugin ends."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport._folder import PREFIX, make_locked, new_name, remove, sweep
from pyvider_rpcplugin.transport._path import (
    LONGEST_PATH,
    anybody_may_replace,
    group_number,
    let_group_in,
    temporary_folders,
)

if TYPE_CHECKING:
    from collections.abc import Generator

logger = event_logger(__name__)

_KIND = "host-"
# What a plugin's socket is called inside is the plugin's choice; Go's and ours are shorter.
_ROOM_FOR_NAME = 28


@contextlib.contextmanager
def socket_folder(parent: str, group: str = "") -> Generator[str | None]:
    """Make a folder that only this user may enter, for the length of a block.

    A plugin that is killed cannot remove its socket; its host can remove the folder. A host that is
    killed cannot either: then the next one does. It knows such a folder by its lock, which the
    system takes from a process that ends.

    Args:
        parent: Where to make it; "" for the first temporary folder that will do.
        group: A group that may use it too: its number or name.

    Yields:
        The folder; None where none can be made. The plugin then has to find a place by itself.

    Raises:
        TransportError: It cannot be made in `parent`, or there is no such group.
    """
    if sys.platform == "win32":
        yield None
        return
    made = _make_in(parent) if parent else _make_somewhere()
    if made is None:
        yield None
        return
    folder, lock = made
    maker = os.getpid()
    try:
        if group:
            # The plugin, which may run as another user of the group, makes its sockets in it.
            let_group_in(folder, group_number(group), 0o770)
        yield folder
    finally:
        # Not in a process that was forked off: it is its parent's.
        os.close(lock)  # First, as reading the folder takes a descriptor, and there may be none.
        if maker == os.getpid():
            with contextlib.suppress(OSError):
                remove(folder)


def _make_in(parent: str) -> tuple[str, int] | None:
    """Make it where it was asked for; None if its path would be too long for a socket."""
    place = os.path.abspath(parent)
    name = new_name(_KIND)
    if not _fits(place, name):
        if not _fits(place, ""):
            msg = f"the folder for the plugin's sockets has too long a path: {parent}"
            hint = f"A socket's path may have {LONGEST_PATH} bytes."
            raise TransportError(msg, hint, phase="launch")
        return None
    if anybody_may_replace(place):
        logger.warning("everybody may replace the sockets in %s: it lacks the sticky bit", parent)
    try:
        return make_locked(place, name)
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        msg = f"cannot make a folder for the plugin's socket in {parent}: {reason}"
        hint = "PLUGIN_UNIX_SOCKET_DIR has to be a folder that this user may write to."
        raise TransportError(msg, hint, phase="launch") from exc


def _make_somewhere() -> tuple[str, int] | None:
    """Make it in the first temporary folder that is short, safe, and can be written to."""
    for place in temporary_folders():
        name = new_name(_KIND)
        if not _fits(place, name):
            continue
        try:
            return make_locked(place, name)
        except OSError as exc:
            logger.debug("client.folder.none parent=%s reason=%s", place, exc.strerror)
    return None


def _fits(place: str, name: str) -> bool:
    return len(os.fsencode(os.path.join(place, name))) + _ROOM_FOR_NAME <= LONGEST_PATH


def remove_dead_socket(path: str) -> None:
    """Remove a socket file that a plugin has left, unless somebody listens on it again.

    One in a folder of the plugin's own goes with that folder.
    """
    folder = os.path.dirname(path)
    if os.path.basename(folder).startswith(PREFIX):
        if os.path.exists(folder):
            sweep(os.path.dirname(folder))
        return
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
