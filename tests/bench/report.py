"""The results as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.bench.costs import SIDES, system_calls
from tests.bench.goals import figures, kept
from tests.bench.peers import BASELINE, PEERS
from tests.bench.startup import FLOOR, MANY, STARTERS
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.calls import CallResults
    from tests.bench.costs import CostResults
    from tests.bench.curves import CurveResults
    from tests.bench.startup import Samples

NOTHING = "-"
OURS = ("ours-asyncio", "ours-trio")


class Results(NamedTuple):
    """All that a run measured; None for what was not asked for."""

    about: Mapping[str, object]
    calls: CallResults | None = None
    curves: CurveResults | None = None
    startup: Samples | None = None
    many: Samples | None = None
    idle: Samples | None = None
    costs: CostResults | None = None
    imports: Samples | None = None
    failures: Samples | None = None


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows, the first of which is the heading; all columns but the first to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        parts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "  ".join(parts).rstrip()

    heading, *body = rows
    return "\n".join([line(heading), "  ".join("-" * width for width in widths), *map(line, body)])


def as_text(results: Results) -> str:
    """Return everything as a person reads it."""
    parts = ["\n".join(f"{name}: {value}" for name, value in results.about.items())]
    if results.calls is not None:
        parts += _calls(results.calls)
    if results.curves is not None:
        parts += _curves(results.curves)
    if results.startup is not None:
        parts += _startup(results.startup)
    if results.many is not None:
        parts += _many(results.many)
    if results.idle is not None:
        parts += _idle(results.idle)
    if results.costs is not None:
        parts += _costs(results.costs)
    if results.imports is not None:
        parts += _imports(results.imports)
    if results.failures is not None:
        parts += _failures(results.failures)
    parts += _goals(results)
    return "\n\n".join(parts)


def ratio(value: float | None, other: float | None) -> str:
    """Return the one by the other."""
    return NOTHING if value is None or not other else f"{value / other:.2f}"


def _calls(calls: CallResults) -> list[str]:
    peers = [name for name in PEERS if any(name in rates for rates in calls.rates.values())]
    streaming = [name for name in peers if not PEERS[name].calls_only]
    rates = [["median rates", "unit", *streaming]]
    ratios = [[f"times {BASELINE}", *streaming, "goal asyncio / trio", "reached", "by round"]]
    for name in calls.rates:
        workload = WORKLOADS[name]
        medians = {peer: calls.median(name, peer) for peer in peers}
        rates.append([workload.title, workload.unit, *(_number(medians[p]) for p in streaming)])
        base = medians.get(BASELINE)
        row = [workload.title, *(ratio(medians[peer], base) for peer in streaming)]
        if workload.goals is None:
            row += ["", ""]
        else:
            row.append(" / ".join(f"{goal:g}" for goal in workload.goals))
            row.append(_reached([medians.get(peer) for peer in OURS], workload.goals, base))
        row.append(" / ".join(_by_round(calls.rates[name], peer) for peer in OURS))
        ratios.append(row)
    parts = [table(rates), table(ratios), *_over_tls(calls), *_typed(calls)]
    parts += [*_beside_grpclib(calls), *_blocking(calls)]
    one_caller = {peer: calls.median("unary_1", peer) for peer in peers}
    if any(PEERS[peer].calls_only and rate for peer, rate in one_caller.items()):
        base = one_caller.get(BASELINE)
        rows = [
            [
                "one caller, beside other ways to call a process",
                "calls/s",
                f"x {BASELINE}",
                "x bare",
            ]
        ]
        for peer, rate in one_caller.items():
            # Where both sides are on the same loop and nothing is said but the bytes.
            bare = one_caller.get(f"bare-{PEERS[peer].backend}")
            rows.append([peer, _number(rate), ratio(rate, base), ratio(rate, bare)])
        parts.append(table(rows))
    return parts + _not_measured(calls.failures)


def _by_round(rates: Mapping[str, Sequence[float]], peer: str) -> str:
    """Return the lowest and the highest ratio that a round had: how much the machine wavered."""
    # A peer that failed in between has fewer rounds.
    pairs = zip(rates.get(peer, ()), rates.get(BASELINE, ()), strict=False)
    ratios = [rate / base for rate, base in pairs]
    return f"{min(ratios):.1f}-{max(ratios):.1f}" if ratios else NOTHING


def _over_tls(calls: CallResults) -> list[str]:
    """What encryption costs."""
    goals = {name: workload.tls_goal for name, workload in WORKLOADS.items()}
    return _beside_ours(calls, "over TLS, times plain", "ours-tls", goals)


def _typed(calls: CallResults) -> list[str]:
    """What typed services cost, or save."""
    goals = {name: workload.typed_goal for name, workload in WORKLOADS.items()}
    return _beside_ours(calls, "typed proxy, times the grpclib stub", "typed", goals)


def _beside_ours(
    calls: CallResults, title: str, kind: str, goals: Mapping[str, float | None]
) -> list[str]:
    """The rates of another way to use us, times those of generated code on a plain socket."""
    pairs = [(f"{kind}-{loop}", f"ours-{loop}") for loop in ("asyncio", "trio")]
    rows = [[title, *(name for name, _ in pairs), "goal", "reached"]]
    for name in calls.rates:
        medians = [[calls.median(name, peer) for peer in pair] for pair in pairs]
        if not any(other for other, _ in medians):
            continue
        row = [WORKLOADS[name].title, *(ratio(other, plain) for other, plain in medians)]
        if (goal := goals[name]) is None:
            row += ["", ""]
        else:
            row.append(f"{goal:g}")
            row.append(" / ".join(_reached([other], [goal], plain) for other, plain in medians))
        rows.append(row)
    return [table(rows)] if len(rows) > 1 else []


def _beside_grpclib(calls: CallResults) -> list[str]:
    ours, other = (calls.median("unary_64", name) for name in ("ours-asyncio", "grpclib"))
    if ours is None or other is None:
        return []
    return [f"64 callers: ours-asyncio is {ours / other:.2f} times grpclib (goal 3)"]


def _blocking(calls: CallResults) -> list[str]:
    """What threads that drive the connection themselves have of it, with one caller."""
    blocking, ours = (calls.median("unary_1", name) for name in ("ours-blocking", "ours-asyncio"))
    if blocking is None or ours is None:
        return []
    return [f"blocking client, 1 caller: {blocking / ours:.2f} times ours-asyncio (goal 1.5)"]


def _reached(values: Sequence[float | None], goals: Sequence[float], base: float | None) -> str:
    words = []
    for value, goal in zip(values, goals, strict=True):
        if value is None or not base:
            words.append(NOTHING)
        else:
            words.append("yes" if value / base >= goal else "NO")
    return " / ".join(words)


def _curves(curves: CurveResults) -> list[str]:
    found = curves.as_json()
    peers = [name for name in PEERS if any(name in rates for rates in found["medians"].values())]
    rows = [["calls/s by number of callers", *peers]]
    for callers, medians in found["medians"].items():
        rows.append([callers, *(_number(medians.get(peer)) for peer in peers)])
    parts = [table(rows)]
    rows = [["MiB/s by the size of what is echoed, KiB", *peers]]
    for size, medians in found["sizes"]["medians"].items():
        row = [f"{int(size) >> 10}", *(_number(medians.get(peer)) for peer in peers)]
        rows.append(row)
    parts.append(table(rows))
    for callers, taken in found["latencies"].items():
        rows = [[f"latency with {callers} callers, us", "calls", "p50", "p90", "p99", "p99.9"]]
        for peer, one in taken.items():
            shares = [one["microseconds"][share] for share in ("0.5", "0.9", "0.99", "0.999")]
            rows.append([peer, str(one["calls"]), *map(str, shares)])
        parts.append(table(rows))
    return [*parts, *_not_measured(found["failures"])]


def _startup(samples: Samples) -> list[str]:
    names = [name for name in STARTERS if samples.values.get(name)]
    others = ["grpcio", "pyvider-rpcplugin-0.5.5", "pyvider-rpcplugin-0.5.5-tls", FLOOR]
    beside = [f"x {name}" for name in others]
    rows = [["start to first reply", "ms", "again, ms", *beside]]
    memory = [["idle plugin after a call", "RSS MiB", "PSS MiB"]]
    for name in names:
        first = samples.median(name, "first")
        again = samples.median(name, "again")
        ratios = (ratio(first, samples.median(other, "first")) for other in others)
        rows.append([name, _milliseconds(first), _milliseconds(again), *ratios])
        sizes = (samples.median(name, field) for field in ("rss_kib", "pss_kib"))
        memory.append([name, *(_number(size and size / 1024) for size in sizes)])
    return [table(rows), table(memory), *_not_measured(samples.failures)]


def _many(samples: Samples) -> list[str]:
    floor = samples.median(FLOOR, "seconds")
    rows = [[f"{MANY} plugins of one host, from first start to last reply", "s", f"x {FLOOR}"]]
    for name in samples.values:
        seconds = samples.median(name, "seconds")
        shown = NOTHING if seconds is None else f"{seconds:.2f}"
        rows.append([name, shown, ratio(seconds, floor)])
    return [table(rows), *_not_measured(samples.failures)]


def _idle(samples: Samples) -> list[str]:
    rows = [["what an idle one takes", "plugin's side, KiB", "host's side, KiB"]]
    rows += [
        [name, *(_number(samples.median(name, side)) for side in SIDES)] for name in samples.values
    ]
    return [table(rows), *_not_measured(samples.failures)]


def _costs(costs: CostResults) -> list[str]:
    """What is done for each call, in the plugin's process and in the host's."""
    parts = []
    for name, peers in costs.values.items():
        rows = [
            [
                f"{WORKLOADS[name].title}: plugin / host",
                "steps of the loop",
                "system calls",
                "of them sends",
                "times asleep",
                "processor, us",
            ]
        ]
        for peer, sides in peers.items():
            found = [sides.get(side, {}) for side in SIDES]
            columns = [
                [one.get("steps") for one in found],
                [system_calls(one) for one in found],
                *([one.get(kind) for one in found] for kind in ("sends", "switches", "cpu_us")),
            ]
            rows.append([peer, *(_both(column) for column in columns)])
        parts.append(table(rows))
    return [*parts, *_not_measured(costs.failures)]


def _both(values: Sequence[float | None]) -> str:
    return " / ".join(NOTHING if value is None else f"{value:.2f}" for value in values)


def _goals(results: Results) -> list[str]:
    """All goals in one place, beside what was reached before."""
    before = kept()
    rows = [["goal", "measured", "aim", "reached", "before", ""]]
    for figure in figures(results):
        was = before.get(figure.name)
        words = {None: NOTHING, True: "yes", False: "NO"}
        rows.append(
            [
                figure.name,
                NOTHING if figure.value is None else f"{figure.value:.2f}",
                f"{'at most ' if figure.at_most else ''}{figure.goal:g}",
                words[figure.reached],
                NOTHING if was is None else f"{was:.2f}",
                "WORSE" if was is not None and figure.is_worse_than(was) else "",
            ]
        )
    return [table(rows)] if len(rows) > 1 else []


def _imports(samples: Samples) -> list[str]:
    nothing = samples.median("nothing", "seconds")
    rows = [["a new interpreter that imports", "ms", "more than nothing"]]
    for name in samples.values:
        seconds = samples.median(name, "seconds")
        if seconds is not None and nothing is not None:
            rows.append([name, _milliseconds(seconds), _milliseconds(seconds - nothing)])
    return [table(rows), *_not_measured(samples.failures)]


def _failures(samples: Samples) -> list[str]:
    rows = [["failure / loop / what is raised", "ms"]]
    rows += [[name, _milliseconds(samples.median(name, "seconds"))] for name in samples.values]
    return [table(rows), *_not_measured(samples.failures)]


def _not_measured(failures: Mapping[str, str]) -> list[str]:
    if not failures:
        return []
    return ["not measured:\n" + "\n".join(f"  {name}: {why}" for name, why in failures.items())]


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds * 1000:.1f}"
