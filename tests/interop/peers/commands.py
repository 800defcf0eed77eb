"""How a test talks to a peer: one JSON line each way, over the peer's stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def say(**values: Any) -> None:
    """Tell the test something."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def line() -> str:
    """The test's next line; empty at the end."""
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def obey(run: Callable[[str, str], Awaitable[None]]) -> None:
    """Run the scenarios that the test names, against the addresses that it gives."""
    say(ready=True)
    while text := await line():
        command = json.loads(text)
        try:
            async with asyncio.timeout(20):
                await run(command["scenario"], command["address"])
        except BaseException:
            say(failure=traceback.format_exc())
        else:
            say(failure=None)
