"""Hooks for PyInstaller, which finds this folder by the entry point group ``pyinstaller40``.

It reads a program's imports without running it. Which modules of ours a program needs shows only
when it runs: most are loaded when a name of theirs is first used. So the hooks name them all.
"""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """The folders with hooks."""
    return [os.path.dirname(__file__)]
