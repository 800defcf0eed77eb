"""Where Unix sockets may lie, how long their paths may be, and who may use them."""

from __future__ import annotations

import os
import stat
import sys

from pyvider_rpcplugin.exception import TransportError

# What fits into sockaddr_un beside the final NUL.
LONGEST_PATH = 107 if sys.platform.startswith("linux") else 103

_ALWAYS = ("/tmp", "/var/tmp")  # noqa: S108 - only folders of our own are made in them


def temporary_folders() -> list[str]:
    """The folders to try, the best first, as absolute paths."""
    wanted = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    places = [os.path.abspath(place) for place in wanted if place]
    places += [place for place in _ALWAYS if place not in places]
    return [place for place in places if not anybody_may_replace(place)]


def anybody_may_replace(place: str) -> bool:
    """Whether every user may put something else in the place of what we make there."""
    try:
        mode = os.stat(place).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def group_number(group: str | int) -> int:
    """Find the number of a group.

    Raises:
        TransportError: There is no such group.
    """
    if isinstance(group, int):
        return group
    if group.isdigit():
        return int(group)
    import grp  # noqa: PLC0415 - exists on POSIX alone, and is hardly ever needed

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        message = f"no such group: {group!r}"
        raise TransportError(message, hint="give the name or number of an existing group") from None


def let_group_in(path: str, group: int, mode: int) -> None:
    """Give a socket or its folder to a group, with a mode that says what the group may do.

    Raises:
        TransportError: This user may not.
    """
    try:
        os.chown(path, -1, group)
        os.chmod(path, mode)
    except OSError as error:
        message = (
            f"cannot let the group {group} use {path}: {(error.strerror or str(error)).lower()}"
        )
        raise TransportError(message, hint="this user has to be a member of the group") from error
