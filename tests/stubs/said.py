"""Running the script."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from .script import BEHAVIOURS, BLOCKING, INTERCEPTED, Behaviour

GROUPS: dict[str, dict[str, Behaviour]] = {
    "async": BEHAVIOURS,
    "blocking": BLOCKING,
    "intercepted": INTERCEPTED,
}


async def run_one(behaviour: Behaviour, stub: Any) -> list[str]:
    """What a behaviour says."""
    said: list[str] = []

    def say(*things: Any) -> None:
        said.append(" ".join(map(str, things)))

    with anyio.fail_after(60):
        await behaviour(stub, say)
    return said


async def run_all(stub: Any, group: str) -> dict[str, list[str]]:
    """What all of them say, one after the other; if one fails, how."""
    said = {}
    for name, behaviour in GROUPS[group].items():
        try:
            said[name] = await run_one(behaviour, stub)
        except (Exception, asyncio.CancelledError) as error:
            said[name] = [f"failed: {error!r}"]
    return said
