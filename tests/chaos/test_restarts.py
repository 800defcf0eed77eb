"""Calls of a pool whose plugins are killed and reloaded. `nox -s chaos` makes more of them."""

from __future__ import annotations

import pytest

from tests.chaos import many, restarts

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_no_idempotent_call_fails_and_no_other_is_repeated(anyio_backend: str) -> None:
    assert not await restarts.run(anyio_backend, 600, interval=0.2)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_more_plugins_than_can_start_at_once_all_start(anyio_backend: str) -> None:
    assert not await many.run(anyio_backend, 8)
