"""What the host has handed to its plugin through a pipe, and not through the environment."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["take_inherited"]

_VARIABLE = "PLUGIN_IDENTITY_PIPE"

# More than is ever handed over, and what a pipe gives at once.
_MOST = 4096


def take_inherited(environ: MutableMapping[str, str]) -> bytes | None:
    """Take what was handed to this process, once; None if nothing was.

    Neither the variable nor the descriptor is there afterwards, for this process's own children to
    inherit. A descriptor that is not the pipe of the variable is left alone: something between the
    host and this process has closed that one.

    Args:
        environ: Where the variable is.
    """
    text = environ.pop(_VARIABLE, "")
    try:
        descriptor, device, inode = map(int, text.split(":"))
        found = os.fstat(descriptor)
    except (ValueError, OverflowError, OSError):
        return None
    if not stat.S_ISFIFO(found.st_mode) or (found.st_dev, found.st_ino) != (device, inode):
        return None
    try:
        return os.read(descriptor, _MOST) or None
    except OSError:
        return None
    finally:
        os.close(descriptor)
