"""anyio's worker processes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import to_process

from tests.bench.peers._one_caller import OneCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def echo(payload: bytes) -> bytes:
    return payload


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[ToProcessCaller]:
    yield ToProcessCaller()


class ToProcessCaller(OneCaller):
    async def unary(self, payload: bytes, count: int) -> None:
        run_sync = to_process.run_sync
        reply: bytes | None = None
        for _ in range(count):
            reply = await run_sync(echo, payload)
        assert reply == payload
