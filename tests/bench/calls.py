"""Measures calls: every workload of every peer, interleaved."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tests.bench.environments import child_variables
from tests.bench.processes import Child, ChildError, progress
from tests.bench.workloads import Workload, count_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.bench.environments import Environments
    from tests.bench.peers import Peer

    OnReport = Callable[[str, str, dict[str, Any]], None]

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds in which a peer must start, or do its work once."""


class CallResults(NamedTuple):
    """What was measured."""

    rates: dict[str, dict[str, list[float]]]
    """By workload and peer: the rate of each round."""
    versions: dict[str, dict[str, str]]
    """By peer and distribution."""
    failures: dict[str, str]
    """By peer, or "peer workload": why nothing was measured."""

    def median(self, workload: str, peer: str) -> float | None:
        """Return the median rate, None where nothing was measured."""
        rates = self.rates.get(workload, {}).get(peer)
        return statistics.median(rates) if rates else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the medians."""
        medians = {
            workload: {peer: statistics.median(rates) for peer, rates in peers.items() if rates}
            for workload, peers in self.rates.items()
        }
        return {"medians": medians, **self._asdict()}


def rotated(items: Sequence[T], turns: int) -> list[T]:
    """Return the items in the same order, beginning with another one each turn."""
    if not items:
        return []
    first = turns % len(items)
    return [*items[first:], *items[:first]]


def measure_calls(
    peers: Sequence[Peer],
    workloads: Sequence[Workload],
    environments: Environments,
    stage: Path,
    *,
    rounds: int,
    seconds: float,
    on_report: OnReport | None = None,
) -> CallResults:
    """Run each workload of each peer once in each round.

    Server and client processes stay up for the whole run. How much one round's work is follows
    from the rate of the warm-up: about the given number of seconds. `on_report` is called with the
    names of workload and peer, and with what the client's process said of a round.
    """
    results = CallResults({workload.name: {} for workload in workloads}, {}, {})
    running: list[_RunningPeer] = []
    with ExitStack() as stack:
        for peer in peers:
            python = environments.python(peer.environment)
            if python is None:
                results.failures[peer.name] = environments.failures[peer.environment]
            else:
                running.append(_RunningPeer(peer, python, stage, results, seconds, on_report))
                stack.callback(running[-1].close)
        for round_number in range(rounds + 1):
            progress(f"calls: round {round_number} of {rounds}")
            for workload in workloads:
                for one in rotated(running, round_number):
                    one.work(workload)
    progress("")
    return results


class _RunningPeer:
    """A peer's processes, started when there is work for them, anew after a failure."""

    def __init__(
        self,
        peer: Peer,
        python: str,
        stage: Path,
        results: CallResults,
        seconds: float,
        on_report: OnReport | None,
    ) -> None:
        self._peer = peer
        self._python = python
        self._stage = stage
        self._results = results
        self._seconds = seconds
        self._on_report = on_report
        self._counts: dict[str, int] = {}
        self._children: list[Child] = []
        self._starts = 0

    def work(self, workload: Workload) -> None:
        """Do one round's work. The first time is the warm-up, which decides the amount."""
        if self._peer.calls_only and not workload.calls_only:
            return
        failure = f"{self._peer.name} {workload.name}"
        if {self._peer.name, failure} & self._results.failures.keys():
            return
        if not self._children and not self._started():
            return
        try:
            count = self._counts.get(workload.name)
            if count is None:
                self._warm_up(workload)
                return
            report = self._report(workload, count)
        except ChildError as error:
            # The processes may be in the midst of anything now.
            self._results.failures[failure] = str(error)
            self.close()
            return
        rate = rate_of(workload, count, report)
        self._results.rates[workload.name].setdefault(self._peer.name, []).append(rate)
        if self._on_report is not None:
            self._on_report(workload.name, self._peer.name, report)

    def close(self) -> None:
        """End the processes, the client's first."""
        for child in reversed(self._children):
            child.close()
        self._children.clear()

    def _started(self) -> bool:
        self._starts += 1
        address = str(self._stage / f"{self._peer.name}-{self._starts}")
        try:
            for child in started(self._peer, self._python, self._stage, address):
                self._children.append(child)
                report = child.report(TIMEOUT)
                self._results.versions[self._peer.name] = report["versions"]
        except ChildError as error:
            self._results.failures[self._peer.name] = str(error)
            self.close()
            return False
        return True

    def _warm_up(self, workload: Workload) -> None:
        # Twice: the first calls of a process are slower than all others.
        for _ in range(2):
            report = self._report(workload, workload.warm_up)
            rate = rate_of(workload, workload.warm_up, report) / workload.scale
            self._counts[workload.name] = count_for(workload, rate, self._seconds)

    def _report(self, workload: Workload, count: int) -> dict[str, Any]:
        return self._children[-1].ask(f"{workload.name} {count}", TIMEOUT)


def started(
    peer: Peer, python: str, stage: Path, address: str, **variables: str
) -> Iterator[Child]:
    """Start a peer's processes, each when it is asked for: the server must be there first."""
    for role in ["server", "client"] if peer.has_server else ["client"]:
        command = [python, "-m", "tests.bench.child", peer.name, role, address]
        yield Child(command, stage, child_variables(TMPDIR=str(stage / "tmp"), **variables))


def rate_of(workload: Workload, count: int, report: Mapping[str, float]) -> float:
    """Return the units in a second."""
    return count * workload.scale / report["seconds"]
