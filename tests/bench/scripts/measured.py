"""What every host script reports. It is imported after the measurement, or costs it nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path


def children() -> list[int]:
    """Return the process ids of this process's children."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_bytes()
        except OSError:
            # It ended meanwhile.
            continue
        # The command's name is in parentheses and may itself hold some.
        if int(stat.rpartition(b")")[2].split()[1]) == os.getpid():
            found.append(int(folder.name))
    return found


def memory_of_children() -> dict[str, int]:
    """Return the memory of this process's children together, in KiB."""
    total = {"rss_kib": 0, "pss_kib": 0}
    for pid in children():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in {"Rss", "Pss"}:
                total[f"{name.lower()}_kib"] += int(value.split()[0])
    return total


def report_many(start: float, replies: list[float]) -> None:
    """Print how long it took until so many had replied; the last of them under ``seconds``."""
    taken = [reply - start for reply in replies]
    some = {f"seconds of {n}": taken[n - 1] for n in (1, 5, 10, 20, 30, 40) if n <= len(taken)}
    print(json.dumps({**some, "seconds": taken[-1]}), flush=True)


def report(seconds: list[float], memory: dict[str, int]) -> None:
    """Print what a host measured."""
    print(json.dumps({"first": seconds[0], "again": seconds[1], **memory}), flush=True)
