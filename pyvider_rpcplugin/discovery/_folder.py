"""The files in a folder that fit a pattern."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


def files_in(folder: str, pattern: str) -> list[str]:
    """Find files; their paths from the folder, sorted.

    Raises:
        ConfigError: There is no such folder, it cannot be read, or this is no such pattern.
    """
    parts = pattern.replace(os.sep, "/").split("/")
    if not pattern or os.path.isabs(pattern) or ".." in parts:
        msg = f"{pattern!r} is no pattern for the names of plugins in a folder"
        raise ConfigError(msg, 'It looks like "myapp-plugin-*".', phase="discover")
    if any("**" in part for part in parts):
        msg = f"the pattern {pattern!r} has ** in it: that is not known here"
        raise ConfigError(msg, "* stands for any name, at one level.", phase="discover")
    try:
        with os.scandir(folder):
            return sorted(_files(folder, pattern))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        msg = f"cannot look for plugins in {folder}: {reason}"
        raise ConfigError(msg, "Check the folder.", phase="discover") from error


def _files(folder: str, pattern: str) -> Iterator[str]:
    for name in glob.iglob(pattern, root_dir=folder):
        if os.path.isfile(os.path.join(folder, name)):
            yield name


def is_program(path: str) -> bool:
    """Whether this is a file that this user may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def called(name: str, pattern: str) -> str:
    """What a plugin is called whose file fits a pattern.

    That is what the pattern's one `*` stands for; without one such, the file's name without suffix.
    """
    if os.name == "nt":
        name = name.removesuffix(".exe")
        pattern = pattern.removesuffix(".exe")
    if pattern.count("*") == 1 and not {"?", "["} & set(pattern):
        before, after = pattern.split("*")
        star = name[len(before) : len(name) - len(after)]
        if star:
            return star
    return os.path.splitext(os.path.basename(name))[0]
