"""What is left when hosts are killed: nothing. `nox -s chaos` kills more of them."""

from __future__ import annotations

import pytest

from tests.chaos.hosts import clean_up, kill_one

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_nothing_is_left_of_hosts_that_were_killed(loop: str) -> None:
    # Longer than the two seconds that it takes at most: these tests share the machine.
    left = [what for after in (0.15, 0.5, 1.5) for what in kill_one(loop, after, limit=10)]
    assert not left
    assert not clean_up(loop)
