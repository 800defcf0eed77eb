"""Measures what a call costs beside its time: steps of the loops, system calls, processor time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench import counting
from tests.bench.calls import TIMEOUT, rate_of, started
from tests.bench.processes import Child, ChildError, progress
from tests.bench.workloads import WORKLOADS, count_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.environments import Environments
    from tests.bench.peers import Peer

COST_PEERS = ("ours-asyncio", "ours-trio", "ours-tls-asyncio", "grpcio", "grpclib")
# Its sockets are used by code in C, of which the interpreter does not tell.
UNSEEN = ("grpcio",)
COST_WORKLOADS = ("unary_1", "unary_64", "ping_pong", "server_stream", "client_stream")
SIDES = ("server", "client")
SYSTEM_CALLS = ("polls", "watches", "receives", "sends")


class CostResults(NamedTuple):
    """What was measured."""

    values: dict[str, dict[str, dict[str, dict[str, float]]]]
    """By workload, peer and side: what each call or message costs, by kind."""
    failures: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return self._asdict()


def measure_costs(
    peers: Sequence[Peer], environments: Environments, stage: Path, *, seconds: float
) -> CostResults:
    """Run each workload of each peer twice: as it is, and while both processes count."""
    results = CostResults({name: {} for name in COST_WORKLOADS}, {})
    for number, peer in enumerate(peers):
        python = environments.python(peer.environment)
        assert python is not None
        for counted in (False, True):
            progress(f"costs: {peer.name}")
            variables = {counting.VARIABLE: "yes"} if counted else {}
            address = str(stage / f"costs-{number}-{counted}")
            children: list[Child] = []
            try:
                for child in started(peer, python, stage, address, **variables):
                    children.append(child)
                    child.report(TIMEOUT)
                for name in COST_WORKLOADS:
                    costs = _costs(children, name, seconds, counted=counted)
                    sides = results.values[name].setdefault(peer.name, {})
                    for side, found in zip(SIDES, costs, strict=True):
                        sides.setdefault(side, {}).update(found)
            except ChildError as error:
                results.failures[peer.name] = str(error)
                break
            finally:
                for child in reversed(children):
                    child.close()
    for name in UNSEEN:
        for peers_of in results.values.values():
            for found in peers_of.get(name, {}).values():
                for kind in SYSTEM_CALLS:
                    found.pop(kind, None)
    progress("")
    return results


def _costs(
    children: Sequence[Child], name: str, seconds: float, *, counted: bool
) -> list[dict[str, float]]:
    """Run a workload: return what each of its calls or messages cost each of the processes."""
    workload, client = WORKLOADS[name], children[-1]
    look = _counted if counted else _used
    report: dict[str, Any] = {}
    for _ in range(2):
        report = client.ask(f"{name} {workload.warm_up}", TIMEOUT)
    count = count_for(workload, rate_of(workload, workload.warm_up, report), seconds)
    before = [look(child) for child in children]
    client.ask(f"{name} {count}", TIMEOUT)
    after = [look(child) for child in children]
    return [each(old, new, count) for old, new in zip(before, after, strict=True)]


def each(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, float]:
    """Return by how much each of the figures grew, divided by the number."""
    return {kind: (value - before.get(kind, 0)) / count for kind, value in after.items()}


def system_calls(found: Mapping[str, float]) -> float | None:
    """Return the number of all of them, None where they are not seen."""
    return sum(found[kind] for kind in SYSTEM_CALLS) if "sends" in found else None


def _counted(child: Child) -> dict[str, float]:
    found = child.ask("counts", TIMEOUT)
    return {kind: found.get(kind, 0) for kind in ("steps", *SYSTEM_CALLS)}


def _used(child: Child) -> dict[str, float]:
    """Return how often the threads of a process went to sleep, and its microseconds on a core."""
    process = Path(f"/proc/{child.pid}")
    switches = 0
    for status in process.glob("task/*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
    # The command's name is in parentheses and may itself hold some.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return {"switches": switches, "cpu_us": ticks * 1e6 / os.sysconf("SC_CLK_TCK")}
