"""Waiting for the first of several things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def first(*waits: Callable[[], Awaitable[Any]]) -> None:
    """Wait until one of several things has happened."""
    async with anyio.create_task_group() as tg:

        async def watch(wait: Callable[[], Awaitable[Any]]) -> None:
            await wait()
            tg.cancel_scope.cancel()

        for wait in waits:
            tg.start_soon(watch, wait)
