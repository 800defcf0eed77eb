"""A few faults by chance. `nox -s chaos` does more of them."""

from __future__ import annotations

import pytest

from tests.chaos.faults import Run, grown

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_every_call_ends_rightly_and_nothing_is_left(seed: int, anyio_backend: str) -> None:
    run = Run(seed, 20, anyio_backend, callers=4)
    await run.run()
    print(run.report())
    assert not run.wrong
    assert run.calls["OK"]


def test_growth_is_seen_where_memory_swings() -> None:
    run = Run(1, 2000, "asyncio")
    swings = [64_000, 70_000, 68_000, 73_000, 66_000] * 40
    run.resident = swings
    assert grown(run) == 0
    run.resident = [size + 40 * number for number, size in enumerate(swings)]
    assert 0.04 < grown(run) < 0.05
    run.resident = swings[:160] + [size * 2 for size in swings[160:]]
    assert grown(run) == 1
