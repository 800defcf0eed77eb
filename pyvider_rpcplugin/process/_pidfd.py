"""What becomes readable when a process ends."""

from __future__ import annotations

import os


def open_pidfd(pid: int) -> int | None:
    """Open what becomes readable when a process ends; None where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
