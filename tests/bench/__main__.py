"""``python -m tests.bench``: measures, prints tables of ratios, and writes JSON.

It ends with status 1 if something became worse than it was, or could not be measured of this
library.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.calls import measure_calls
from tests.bench.costs import COST_PEERS, measure_costs
from tests.bench.curves import CURVE_PEERS, measure_curves
from tests.bench.environments import Environments, stage
from tests.bench.goals import figures, keep, kept, worse
from tests.bench.peers import BASELINE, PEERS
from tests.bench.report import OURS, Results, as_text
from tests.bench.startup import (
    STARTERS,
    measure_failures,
    measure_idle,
    measure_imports,
    measure_many,
    measure_startup,
)
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable

SECTIONS = ("curves", "startup", "many", "idle", "costs", "imports", "failures")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    what = ", ".join([*WORKLOADS, *SECTIONS])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of everything (5)")
    parser.add_argument(
        "--only", type=_names([*WORKLOADS, *SECTIONS]), metavar="NAMES", help=f"some of: {what}"
    )
    parser.add_argument(
        "--peers",
        type=_names([*PEERS, *STARTERS]),
        metavar="NAMES",
        help=f"some of: {', '.join(dict.fromkeys([*PEERS, *STARTERS]))}",
    )
    parser.add_argument(
        "--seconds", type=float, default=0.3, help="of work in one round, about (0.3)"
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it work?")
    parser.add_argument(
        "--keep", action="store_true", help="take what was measured for what was reached"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the results")
    parser.add_argument(
        "--environments",
        type=Path,
        metavar="FOLDER",
        help="where to keep the environments of other packages (by default a temporary folder)",
    )
    return parser.parse_args()


def _names(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name}")
        return names

    return parse


def about(rounds: int, seconds: float) -> dict[str, object]:
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "rounds": f"{rounds}, each of about {seconds:g} s for every workload of every peer",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def main() -> int:
    options = arguments()
    rounds, seconds = (1, 0.05) if options.quick else (options.rounds, options.seconds)
    only: list[str] = options.only or [*WORKLOADS, *SECTIONS]
    names: list[str] = options.peers or [*PEERS, *STARTERS]
    facts = about(rounds, seconds)
    with ExitStack() as stack:
        folder = options.environments
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        environments = Environments(folder.absolute())
        place = stack.enter_context(stage())
        results = Results(facts)
        workloads = [WORKLOADS[name] for name in WORKLOADS if name in only]
        peers = [PEERS[name] for name in PEERS if name in names]
        if workloads and peers:
            calls = measure_calls(
                peers, workloads, environments, place, rounds=rounds, seconds=seconds
            )
            versions = {k: v for peer in calls.versions.values() for k, v in peer.items()}
            facts["versions"] = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
            results = results._replace(calls=calls)
        curve_peers = [peer for peer in peers if peer.name in CURVE_PEERS]
        if "curves" in only and curve_peers:
            curves = measure_curves(
                curve_peers, environments, place, rounds=rounds, seconds=seconds
            )
            results = results._replace(curves=curves)
        starters = [STARTERS[name] for name in STARTERS if name in names]
        if "startup" in only and starters:
            startup = measure_startup(starters, environments, place, rounds)
            results = results._replace(startup=startup)
        if "many" in only:
            results = results._replace(many=measure_many(environments, place, rounds))
        idle = [name for name in OURS if name in names]
        if "idle" in only and idle:
            results = results._replace(idle=measure_idle(idle, environments, place))
        cost_peers = [peer for peer in peers if peer.name in COST_PEERS]
        if "costs" in only and cost_peers:
            costs = measure_costs(cost_peers, environments, place, seconds=seconds)
            results = results._replace(costs=costs)
        if "imports" in only:
            results = results._replace(imports=measure_imports(environments, place, rounds))
        backends = [PEERS[name].backend for name in names if name.startswith("ours-")]
        if "failures" in only and backends:
            failures = measure_failures(list(dict.fromkeys(backends)), environments, place, rounds)
            results = results._replace(failures=failures)
    facts["load after"] = f"{os.getloadavg()[0]:.2f}"
    print(as_text(results))
    measured = figures(results)
    sections = {
        name: value.as_json()
        for name, value in results._asdict().items()
        if name != "about" and value is not None
    }
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        before = kept()
        goals = [figure._asdict() | {"before": before.get(figure.name)} for figure in measured]
        whole = {"about": facts, "baseline": BASELINE, **sections, "goals": goals}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    complaints = [f"worse than before: {figure.name}" for figure in worse(measured, kept())]
    complaints += [
        f"not measured: {name}"
        for section in sections.values()
        for name in section["failures"]
        if "ours" in name or "typed" in name
    ]
    if options.keep:
        keep(measured)
    elif complaints:
        print("\n".join(complaints), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
