"""What a process takes of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def resident_memory(pid: int) -> int | None:
    """Bytes of a process that are in memory; None if it is gone, or the system does not say.

    Only Linux tells it without tools.
    """
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
