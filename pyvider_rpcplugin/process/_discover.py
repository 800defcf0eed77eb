"""Finding the plugins that are installed in a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["discover"]


def discover(pattern: str, folder: str | os.PathLike[str]) -> list[str]:
    """Find the programs in a folder whose names fit a pattern.

    Args:
        pattern: A name in which `*` stands for any letters, `?` for any one, and `[abc]` for one
            of several, as in "myapp-plugin-*". It may go through folders below ("*/plugin"), at
            as many levels as it names. Hidden files (.name) have to be named as such. On Windows,
            programs have a suffix (.exe), which the pattern has to allow for.
        folder: Where to look.

    Returns:
        The paths of the files that this user may execute, absolute and sorted; what else fits the
        pattern is left out. Each can be the first word of a command.

    Raises:
        ConfigError: There is no such folder, it cannot be read, or this is no such pattern.
    """
    import glob  # noqa: PLC0415 - it loads `re`; most hosts know where their plugins are

    base: str = os.path.abspath(folder)
    parts = pattern.replace(os.sep, "/").split("/")
    if not pattern or os.path.isabs(pattern) or ".." in parts:
        msg = f"{pattern!r} is no pattern for the names of plugins in a folder"
        raise ConfigError(msg, 'It looks like "myapp-plugin-*".', phase="discover")
    if any("**" in part for part in parts):
        msg = f"the pattern {pattern!r} has ** in it: that is not known here"
        raise ConfigError(msg, "* stands for any name, at one level.", phase="discover")
    try:
        with os.scandir(base):
            found = glob.iglob(pattern, root_dir=base)
            return sorted(_programs(os.path.join(base, name) for name in found))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        msg = f"cannot look for plugins in {base}: {reason}"
        raise ConfigError(msg, "Check the folder.", phase="discover") from error


def _programs(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
