"""Measures calls: every workload of every peer, interleaved."""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tests.bench.environments import child_variables
from tests.bench.processes import Child, ChildError
from tests.bench.workloads import WORKLOADS, Workload, count_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.environments import Environments
    from tests.bench.peers import Peer

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
) -> CallResults:
    """Run each workload of each peer once in each round.

    Server and client processes stay up for the whole run. How much one round's work is follows
    from the rate of the warm-up: about the given number of seconds.
    """
    results = CallResults({workload.name: {} for workload in workloads}, {}, {})
    with ExitStack() as stack:
        clients: dict[str, Child] = {}
        for peer in peers:
            python = environments.python(peer.environment)
            if python is None:
                results.failures[peer.name] = environments.failures[peer.environment]
                continue
            try:
                clients[peer.name] = _start(peer, python, stage, stack, results)
            except ChildError as error:
                results.failures[peer.name] = str(error)
        counts: dict[tuple[str, str], int] = {}
        for round_number in range(rounds + 1):
            _progress(f"calls: round {round_number} of {rounds}")
            for workload in workloads:
                for peer in rotated(peers, round_number):
                    if workload.calls_only or not peer.calls_only:
                        _once(peer, workload, clients, counts, results, seconds)
    _progress("")
    return results


def _start(
    peer: Peer, python: str, stage: Path, stack: ExitStack, results: CallResults
) -> Child:
    address = str(stage / f"{peer.name}.sock")
    roles = ["server", "client"] if peer.has_server else ["client"]
    child: Child | None = None
    for role in roles:
        child = Child(
            [python, "-m", "tests.bench.child", peer.name, role, address], stage, child_variables()
        )
        stack.callback(child.close)
        results.versions[peer.name] = child.report(TIMEOUT)["versions"]
    assert child is not None
    return child


def _once(
    peer: Peer,
    workload: Workload,
    clients: dict[str, Child],
    counts: dict[tuple[str, str], int],
    results: CallResults,
    seconds: float,
) -> None:
    """Do one peer's work of one round. The first time is the warm-up, which decides the amount."""
    client = clients.get(peer.name)
    failure = f"{peer.name} {workload.name}"
    if client is None or failure in results.failures:
        return
    key = (peer.name, workload.name)
    count = counts.get(key)
    try:
        if count is None:
            # Twice: the first calls of a process are slower than all others.
            for _ in range(2):
                count = workload.warm_up
                rate = count / client.ask(f"{workload.name} {count}", TIMEOUT)["seconds"]
                counts[key] = count_for(workload, rate, seconds)
            return
        taken = client.ask(f"{workload.name} {count}", TIMEOUT)["seconds"]
    except ChildError as error:
        # The client may be in the midst of anything now.
        results.failures[failure] = str(error)
        clients.pop(peer.name).close()
        return
    rate = count * workload.scale / taken
    results.rates[workload.name].setdefault(peer.name, []).append(rate)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
