"""A few faults by chance. `nox -s chaos` does more of them."""

from __future__ import annotations

import pytest

from tests.chaos.faults import Run

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_every_call_ends_rightly_and_nothing_is_left(seed: int, anyio_backend: str) -> None:
    run = Run(seed, 20, anyio_backend, callers=4)
    await run.run()
    print(run.report())
    assert not run.wrong
    assert run.calls["OK"]
