"""What we aim at, what was measured of it, and whether it became worse than it was.

Each goal is for the median of what one run measured. `reached.json` says what was reached, in a run
on a quiet machine; ``python -m tests.bench --keep`` writes it. Machines waver, so only what is worse
by a quarter is called worse.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.peers import BASELINE
from tests.bench.startup import FLOOR, IDLE_GOALS, MANY, STARTERS
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.bench.calls import CallResults
    from tests.bench.curves import CurveResults
    from tests.bench.report import Results
    from tests.bench.startup import Samples

REACHED = Path(__file__).with_name("reached.json")
SHARE = 0.75
"""Of what was reached: what is less than that is a step back."""

LOOPS = ("asyncio", "trio")


class Figure(NamedTuple):
    """One goal."""

    name: str
    value: float | None
    """What was measured; None if it was not."""
    goal: float
    at_most: bool = False
    """The goal is not to be exceeded; otherwise it is to be reached."""

    @property
    def reached(self) -> bool | None:
        """Whether it is; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def is_worse_than(self, reached: float) -> bool:
        """Whether it is a step back from what was reached before.

        Of what was better than its goal, the goal counts: the others' rates waver, too.
        """
        if self.value is None:
            return False
        if self.at_most:
            return self.value > max(reached, self.goal) / SHARE
        return self.value < min(reached, self.goal) * SHARE


def figures(results: Results) -> list[Figure]:
    """Return all goals of what was measured."""
    found: list[Figure] = []
    if results.calls is not None:
        found += _of_calls(results.calls)
    if results.curves is not None:
        found += _of_curves(results.curves)
    if results.startup is not None:
        found += _of_startup(results.startup)
    if results.many is not None:
        found += _of_many(results.many)
    if results.idle is not None:
        found += _of_idle(results.idle)
    return found


def kept() -> dict[str, float]:
    """Return what was reached, by the name of the figure."""
    reached: dict[str, float] = json.loads(REACHED.read_text())
    return reached


def keep(measured: Sequence[Figure]) -> None:
    """Write what was measured as what was reached; what was not measured stays."""
    values = {
        figure.name: round(figure.value, 3) for figure in measured if figure.value is not None
    }
    REACHED.write_text(json.dumps(kept() | values, indent=1) + "\n")


def worse(measured: Sequence[Figure], reached: Mapping[str, float]) -> list[Figure]:
    """Return those that are a step back."""
    return [
        figure
        for figure in measured
        if figure.name in reached and figure.is_worse_than(reached[figure.name])
    ]


def _of_calls(calls: CallResults) -> Iterator[Figure]:
    def times(workload: str, peer: str, other: str) -> float | None:
        return _times(calls.median(workload, peer), calls.median(workload, other))

    for name in calls.rates:
        workload = WORKLOADS[name]
        for loop, goal in zip(LOOPS, workload.goals or (), strict=False):
            value = times(name, f"ours-{loop}", BASELINE)
            yield Figure(f"{workload.title}, {loop}, times {BASELINE}", value, goal)
        for loop in LOOPS:
            ours = f"ours-{loop}"
            if workload.tls_goal is not None:
                value = times(name, f"ours-tls-{loop}", ours)
                title = f"{workload.title}, mutual TLS, {loop}, times plain"
                yield Figure(title, value, workload.tls_goal)
            if workload.typed_goal is not None:
                value = times(name, f"typed-{loop}", ours)
                title = f"typed {workload.title}, {loop}, times generated code"
                yield Figure(title, value, workload.typed_goal)
            if name == "unary_64":
                value = times(name, f"ours-tls-{loop}", f"{BASELINE}-tls")
                title = f"{workload.title}, mutual TLS, {loop}, times {BASELINE} over TLS"
                yield Figure(title, value, 3)
            if name == "unary_1":
                value = times(name, ours, f"bare-{loop}")
                yield Figure(f"{workload.title}, {loop}, times octets on a socket", value, 0.4)
                value = times(name, f"typed-{loop}", f"to_process-{loop}")
                title = f"typed {workload.title}, {loop}, times anyio.to_process"
                yield Figure(title, value, 1)
        if name == "unary_1":
            value = times(name, "ours-blocking", "ours-asyncio")
            yield Figure("blocking client, 1 caller, times asyncio", value, 1.5)


def _of_curves(curves: CurveResults) -> Iterator[Figure]:
    for loop in LOOPS:
        peer = f"ours-{loop}"
        slowest = curves.slowest.get("latency_1000", {}).get(peer)
        value = statistics.median(slowest) if slowest else None
        title = f"1,000 streams, {loop}: the slowest call, times the median"
        yield Figure(title, value, 3, at_most=True)
        rates = (curves.calls.median(f"callers_{number}", peer) for number in (1000, 64))
        yield Figure(
            f"1,000 streams, {loop}: the rate, times that of 64 callers", _times(*rates), 0.8
        )


def _of_startup(samples: Samples) -> Iterator[Figure]:
    for starter in STARTERS.values():
        for other, goal in starter.goals:
            values = (samples.median(name, "first") for name in (starter.name, other))
            title = f"start to first reply, {starter.name}, times {other}"
            yield Figure(title, _times(*values), goal, at_most=True)
        if starter.memory_goal is not None:
            other, goal = starter.memory_goal
            values = (samples.median(name, "rss_kib") for name in (starter.name, other))
            title = f"memory of an idle plugin, {starter.name}, times {other}"
            yield Figure(title, _times(*values), goal, at_most=True)


def _of_many(samples: Samples) -> Iterator[Figure]:
    # What a plugin on trio has to load is not in that floor, so there is no goal for those.
    values = (samples.median(name, "seconds") for name in ("ours-tls-asyncio", FLOOR))
    yield Figure(f"{MANY} plugins, asyncio, times the floor", _times(*values), 1.5, at_most=True)


def _of_idle(samples: Samples) -> Iterator[Figure]:
    for loop in LOOPS:
        for kind, goal in IDLE_GOALS.items():
            value = samples.median(f"{kind} / ours-{loop}", "server")
            yield Figure(f"memory of an idle {kind}, {loop}, KiB", value, goal, at_most=True)


def _times(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other
