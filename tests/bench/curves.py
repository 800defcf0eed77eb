"""Measures how rates go with the number of callers and the size of messages, and latencies."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench.calls import CallResults, measure_calls
from tests.bench.workloads import CALLERS, CURVES, SIZES, TIMED_CALLERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.environments import Environments
    from tests.bench.peers import Peer

CURVE_PEERS = ("ours-asyncio", "ours-trio", "grpcio", "grpclib", "purerpc-trio")
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)


class CurveResults(NamedTuple):
    """What was measured."""

    calls: CallResults
    """The rates, by workload."""
    latencies: dict[str, dict[str, list[int]]]
    """By workload and peer: what each call took, in microseconds, of all rounds."""
    slowest: dict[str, dict[str, list[float]]]
    """By workload and peer: the time of the slowest call of each round, by that round's median."""

    def as_json(self) -> dict[str, Any]:
        """Return the rates, and of the latencies their quantiles."""
        rates = {
            str(callers): self.calls.rates.get(f"callers_{callers}", {}) for callers in CALLERS
        }
        sizes = {str(size): self.calls.rates.get(f"size_{size}", {}) for size in SIZES}
        return {
            "medians": _medians(rates),
            "rates": rates,
            "sizes": {"medians": _medians(sizes), "rates": sizes},
            "latencies": {
                str(callers): {
                    peer: {
                        "calls": len(found),
                        "microseconds": quantiles(found),
                        "slowest": self.slowest[f"latency_{callers}"][peer],
                    }
                    for peer, found in self.latencies.get(f"latency_{callers}", {}).items()
                }
                for callers in TIMED_CALLERS
            },
            "failures": self.calls.failures,
        }


def _medians(rates: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {
        name: {peer: statistics.median(found) for peer, found in peers.items() if found}
        for name, peers in rates.items()
    }


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """What a share of the calls did not go beyond: the smallest, the median, and so on."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"{share:g}": ordered[round(share * last)] for share in QUANTILES} if ordered else {}


def measure_curves(
    peers: Sequence[Peer], environments: Environments, stage: Path, *, rounds: int, seconds: float
) -> CurveResults:
    """Run each peer with each number of callers and each size, once in each round."""
    latencies: dict[str, dict[str, list[int]]] = {}
    slowest: dict[str, dict[str, list[float]]] = {}

    def keep(workload: str, peer: str, report: dict[str, Any]) -> None:
        if found := report.get("microseconds"):
            latencies.setdefault(workload, {}).setdefault(peer, []).extend(found)
            beside = max(found) / statistics.median(found)
            slowest.setdefault(workload, {}).setdefault(peer, []).append(beside)

    calls = measure_calls(
        peers,
        list(CURVES.values()),
        environments,
        stage,
        rounds=rounds,
        seconds=seconds,
        on_report=keep,
    )
    return CurveResults(calls, latencies, slowest)
