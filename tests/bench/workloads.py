"""What is measured, and how the client's process runs it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.bench.peers import Caller

SMALL = b"x" * 32
LARGE = b"x" * (3 << 20)
MEBIBYTE = b"x" * (1 << 20)


class Workload(NamedTuple):
    """A kind of work, to be done a number of times."""

    name: str
    title: str
    unit: str
    run: Callable[[Caller, int], Awaitable[list[int] | None]]
    """Returns the microseconds of each call, where it looks at them."""
    warm_up: int
    """How often before anything is measured; the rate of it decides how often in each round."""
    step: int = 1
    """The number of times is a multiple of this."""
    scale: float = 1.0
    """Units in one time."""
    calls_only: bool = False
    """A peer without streams can do it."""
    goals: tuple[float, float] | None = None
    """What we aim at on asyncio and on trio, times the baseline."""
    tls_goal: float | None = None
    """What we aim at over TLS, times what we have without."""
    typed_goal: float | None = None
    """What we aim at with a typed service, times what generated code has."""


async def _one_caller(caller: Caller, count: int) -> None:
    await caller.unary(SMALL, count)


async def _many_callers(caller: Caller, count: int) -> None:
    async with anyio.create_task_group() as callers:
        for _ in range(64):
            callers.start_soon(caller.unary, SMALL, count // 64)


async def _server_stream(caller: Caller, count: int) -> None:
    await caller.server_stream(SMALL, count)


async def _client_stream(caller: Caller, count: int) -> None:
    await caller.client_stream(SMALL, count)


async def _ping_pong(caller: Caller, count: int) -> None:
    await caller.ping_pong(SMALL, count)


async def _large_stream(caller: Caller, count: int) -> None:
    await caller.server_stream(MEBIBYTE, count)


async def _large(caller: Caller, count: int) -> None:
    await caller.unary(LARGE, count)


WORKLOADS = {
    workload.name: workload
    for workload in [
        Workload(
            "unary_64",
            "unary 32 B, 64 callers",
            "calls/s",
            _many_callers,
            warm_up=640,
            step=64,
            goals=(4.5, 3.8),
            tls_goal=0.8,
            typed_goal=1,
        ),
        Workload(
            "unary_1",
            "unary 32 B, 1 caller",
            "calls/s",
            _one_caller,
            warm_up=200,
            calls_only=True,
            goals=(2.5, 2.2),
            tls_goal=0.7,
            typed_goal=1,
        ),
        Workload(
            "ping_pong",
            "bidi ping-pong 32 B",
            "turns/s",
            _ping_pong,
            warm_up=200,
            goals=(2, 1.5),
        ),
        Workload(
            "server_stream",
            "server stream 32 B",
            "messages/s",
            _server_stream,
            warm_up=1000,
            goals=(15, 12),
        ),
        Workload(
            "client_stream",
            "client stream 32 B",
            "messages/s",
            _client_stream,
            warm_up=1000,
            goals=(15, 12),
        ),
        Workload(
            "large_echo",
            "unary 3 MiB echo",
            "MiB/s",
            _large,
            warm_up=3,
            # Both ways.
            scale=6,
            goals=(1.5, 1.5),
        ),
        Workload(
            "large_stream",
            "server stream 1 MiB",
            "MiB/s",
            _large_stream,
            warm_up=8,
            goals=(1, 1),
        ),
    ]
}


# For the curves: rates and latencies by the number of callers, and rates by the size of messages.
CALLERS = (1, 4, 16, 64, 256, 1000)
SIZES = (4 << 10, 64 << 10, 1 << 20, 3 << 20)
TIMED_CALLERS = (1, 64, 1000)


def _callers(number: int) -> Workload:
    async def run(caller: Caller, count: int) -> None:
        async with anyio.create_task_group() as callers:
            for _ in range(number):
                callers.start_soon(caller.unary, SMALL, count // number)

    title = f"unary 32 B, {number} callers"
    return Workload(f"callers_{number}", title, "calls/s", run, max(200, 2 * number), number)


def _latencies(number: int) -> Workload:
    async def run(caller: Caller, count: int) -> list[int]:
        taken: list[int] = []

        async def one() -> None:
            clock, call = time.perf_counter_ns, caller.unary
            for _ in range(count // number):
                start = clock()
                await call(SMALL, 1)
                taken.append((clock() - start) // 1000)

        async with anyio.create_task_group() as callers:
            for _ in range(number):
                callers.start_soon(one)
        return taken

    title = f"latency of unary 32 B, {number} callers"
    return Workload(f"latency_{number}", title, "calls/s", run, max(200, 2 * number), number)


def _echoes(size: int) -> Workload:
    payload = b"x" * size

    async def run(caller: Caller, count: int) -> None:
        await caller.unary(payload, count)

    # Both ways.
    scale = 2 * size / (1 << 20)
    warm_up = max(3, (1 << 20) // size)
    return Workload(f"size_{size}", f"unary echo of {size} B", "MiB/s", run, warm_up, scale=scale)


CURVES = {
    workload.name: workload
    for workload in [
        *map(_callers, CALLERS),
        *map(_latencies, TIMED_CALLERS),
        *map(_echoes, SIZES),
    ]
}


async def timed(workload: Workload, caller: Caller, count: int) -> dict[str, object]:
    """Do it count times: return the seconds that it took, and what it measured itself."""
    start = time.perf_counter()
    taken = await workload.run(caller, count)
    report: dict[str, object] = {"seconds": time.perf_counter() - start}
    return report if taken is None else report | {"microseconds": taken}


def count_for(workload: Workload, rate: float, seconds: float) -> int:
    """Return how often to do it in each round, so that a round takes about the given time."""
    steps = max(1, round(rate * seconds / workload.step))
    return steps * workload.step
