"""Iterators that may be left before their end."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterable


async def close_iterator(items: AsyncIterable[Any] | None) -> None:
    """Close an async generator that may not have come to its end."""
    if inspect.isasyncgen(items):
        await items.aclose()
