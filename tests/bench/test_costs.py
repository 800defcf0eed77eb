"""What is counted of a loop is what it does."""

from __future__ import annotations

import socket
import sys

import anyio

from tests.bench import counting
from tests.bench.costs import each


def test_what_each_call_costs_is_the_growth_by_their_number() -> None:
    assert each({"sends": 2}, {"sends": 6, "polls": 2}, 2) == {"sends": 2, "polls": 1}


async def test_steps_and_system_calls_of_a_loop_are_counted() -> None:
    before = sys.getprofile()
    first, second = socket.socketpair()
    with first, second:
        counting.start()
        try:
            for _ in range(10):
                first.send(b"x")
                assert second.recv(1) == b"x"
                await anyio.lowlevel.checkpoint()
        finally:
            sys.setprofile(before)
    assert counting.counts["sends"] >= 10
    assert counting.counts["receives"] >= 10
    assert counting.counts["steps"] >= 10
    assert counting.counts["polls"] >= 10
