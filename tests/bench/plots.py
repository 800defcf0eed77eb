"""``python -m tests.bench.plots RUN.json ...``: makes pictures and tables of docs/benchmarks.md.

The page's prose is written by hand. What stands between the comments ``<!-- made: NAME -->`` and
``<!-- end -->`` is replaced, the pictures are drawn anew, and the results are put beside the page.

Of several runs, tables and pictures are those of the first; what is aimed at, and when and where it
was measured, has a column for each.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.costs import SIDES, system_calls
from tests.bench.goals import Figure
from tests.bench.peers import BASELINE
from tests.bench.report import NOTHING
from tests.bench.startup import FLOOR, MANY
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "benchmarks.md"
RESULTS = DOCS / "benchmarks.json"

# How the page calls them, and their colours: ours are blue and green.
NAMES = {
    "ours-asyncio": "this library, asyncio",
    "ours-trio": "this library, trio",
    "grpcio": "grpcio (grpc.aio)",
    "grpcio-tls": "grpcio (grpc.aio), mutual TLS",
    "grpclib": "grpclib",
    "purerpc-asyncio": "purerpc, asyncio",
    "purerpc-trio": "purerpc, trio",
    "ours-tls-asyncio": "this library, asyncio, mutual TLS",
    "ours-tls-trio": "this library, trio, mutual TLS",
    "ours-blocking": "this library, blocking",
    "typed-asyncio": "this library, asyncio, typed service",
    "typed-trio": "this library, trio, typed service",
    "bare-asyncio": "octets on a socket, asyncio",
    "bare-trio": "octets on a socket, trio",
    "pyro5": "Pyro5",
    "execnet": "execnet",
    "to_process-asyncio": "anyio.to_process, asyncio",
    "to_process-trio": "anyio.to_process, trio",
    "typed-tls-asyncio": "this library, asyncio, typed service, mutual TLS",
    "floor": "two interpreters that exchange a line",
    "floor-typed": "the same without generated code",
    "pyvider-rpcplugin-0.5.5": "pyvider-rpcplugin 0.5.5 (grpcio)",
    "pyvider-rpcplugin-0.5.5-tls": "pyvider-rpcplugin 0.5.5 (grpcio), mutual TLS",
    "python-plugin-0.1.0": "python-plugin 0.1.0 (grpclib)",
    "python-plugin-0.1.0-tls": "python-plugin 0.1.0 (grpclib), mutual TLS",
}
COLOURS = {
    "ours-asyncio": "#1b6ac9",
    "ours-trio": "#1f9d55",
    "grpcio": "#d9622b",
    "grpclib": "#8a5fbf",
    "purerpc-trio": "#8d8d8d",
}
# The order of the pictures; a peer that was not measured is left out.
GRPC = ("ours-asyncio", "ours-trio", "grpcio", "grpclib", "purerpc-trio")
STARTS = (
    "floor",
    "floor-typed",
    "grpcio",
    "ours-asyncio",
    "ours-trio",
    "ours-tls-asyncio",
    "ours-tls-trio",
    "typed-tls-asyncio",
    "python-plugin-0.1.0",
    "python-plugin-0.1.0-tls",
    "pyvider-rpcplugin-0.5.5",
    "pyvider-rpcplugin-0.5.5-tls",
)


def number(value: float | None, digits: int = 0) -> str:
    """A number as a table has it."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table, the first row of which is the heading."""
    heading, *body = rows
    rule = ["---", *("---:" for _ in heading[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heading, rule, *body])


def about(runs: Sequence[Mapping[str, Any]]) -> str:
    """When, where and with what it was measured."""
    rows = [["what", *_run_titles(runs)]]
    for name in runs[0]["about"]:
        values = [str(run["about"].get(name, NOTHING)) for run in runs]
        same = len(set(values)) == 1
        rows.append([name, values[0], *("the same" if same else value for value in values[1:])])
    # Words, which are read from the left.
    return markdown(rows).replace("---:", "---")


def _run_titles(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["measured"] if len(runs) == 1 else [f"run {n}" for n, _ in enumerate(runs, 1)]


def rates(results: Mapping[str, Any]) -> str:
    """The rate of each workload of each peer that knows all of them, and that by the baseline's."""
    medians = results["calls"]["medians"]
    peers = [name for name in NAMES if name in medians.get("ping_pong", {})]
    rows = [["", *(f"{WORKLOADS[name].title}, {WORKLOADS[name].unit}" for name in medians)]]
    for peer in peers:
        cells = []
        for found in medians.values():
            value, base = found.get(peer), found.get(BASELINE)
            beside = f" ({value / base:.1f}x)" if value and base and peer != BASELINE else ""
            cells.append(number(value) + beside)
        rows.append([NAMES[peer], *cells])
    return markdown(rows)


def others(results: Mapping[str, Any]) -> str:
    """One caller, beside other ways to call a process."""
    found = results["calls"]["medians"].get("unary_1", {})
    rows = [["one caller, 32 octets there and back", "calls/s"]]
    ranked = sorted(found.items(), key=lambda item: -item[1])
    rows += [[NAMES[peer], number(rate)] for peer, rate in ranked]
    return markdown(rows)


def callers(results: Mapping[str, Any]) -> str:
    """The rates by the number of callers."""
    medians = results.get("curves", {}).get("medians", {})
    peers = [peer for peer in GRPC if any(peer in found for found in medians.values())]
    rows = [["callers", *(NAMES[peer] for peer in peers)]]
    rows += [[n, *(number(found.get(p)) for p in peers)] for n, found in medians.items()]
    return markdown(rows)


def latencies(results: Mapping[str, Any]) -> str:
    """The latencies with one caller, and with many."""
    rows = [["", "callers", "calls", "p50, ms", "p90, ms", "p99, ms", "p99.9, ms"]]
    for count, found in results.get("curves", {}).get("latencies", {}).items():
        for peer in GRPC:
            if peer in found:
                taken = found[peer]["microseconds"]
                shares = (taken[share] / 1000 for share in ("0.5", "0.9", "0.99", "0.999"))
                cells = (number(share, 2) for share in shares)
                rows.append([NAMES[peer], count, number(found[peer]["calls"]), *cells])
    return markdown(rows)


def startup(results: Mapping[str, Any]) -> str:
    """The time of a start, and what an idle plugin takes."""
    medians = results["startup"]["medians"]
    heading = ["", "first start, ms", "another one, ms", "memory, MiB", "of that its own, MiB"]
    rows = [heading]
    for name in (name for name in STARTS if name in medians):
        found = medians[name]
        times = (number(found[key] * 1000) for key in ("first", "again"))
        sizes = (number(found[key] / 1024) for key in ("rss_kib", "pss_kib"))
        rows.append([NAMES[name], *times, *sizes])
    return markdown(rows)


def many(results: Mapping[str, Any]) -> str:
    """The time until many plugins of one host have replied."""
    medians = results["many"]["medians"]
    floor = medians.get(FLOOR, {}).get("seconds")
    rows = [[f"{MANY} plugins of one host", "until all have replied, s", "times the least"]]
    for name, found in medians.items():
        seconds = found["seconds"]
        rows.append([NAMES[name], number(seconds, 1), number(floor and seconds / floor, 2)])
    return _picture("Seconds until so many plugins had replied", "many") + markdown(rows)


def parts_of_a_start(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What a first start with mutual TLS takes its milliseconds for: by kind of service and part."""
    medians = results["startup"]["medians"]
    nothing = results.get("imports", {}).get("medians", {}).get("nothing")
    names = ("floor-typed", "floor", "ours-asyncio", "ours-tls-asyncio", "typed-tls-asyncio")
    if nothing is None or not all(name in medians for name in names):
        return {}
    typed_floor, floor, plain, tls, typed = (medians[name]["first"] for name in names)
    loaded = {
        "an interpreter": nothing["seconds"],
        "the loop, ssl, anyio, a socket": typed_floor - nothing["seconds"],
    }
    parts = {
        "generated code": {
            **loaded,
            "generated code and what it imports": floor - typed_floor,
            "this library": plain - floor,
            "its mutual TLS": tls - plain,
        },
        "typed service": {**loaded, "this library and its mutual TLS": typed - typed_floor},
    }
    # Differences of medians, which may be less than nothing where the machine wavered.
    return {
        kind: {part: max(0.0, seconds * 1000) for part, seconds in found.items()}
        for kind, found in parts.items()
    }


def breakdown(results: Mapping[str, Any]) -> str:
    """What a start takes its time for."""
    rows = [["of a first start on asyncio, with mutual TLS", "ms"]]
    for kind, found in parts_of_a_start(results).items():
        rows += [[f"{kind}: {part}", number(taken)] for part, taken in found.items()]
    if len(rows) == 1:
        return ""
    return _picture("What a start takes its time for", "breakdown") + markdown(rows)


def _picture(alternative: str, name: str) -> str:
    # It stands with its table, since it is drawn when that is made.
    return f"![{alternative}](pictures/bench-{name}.svg)\n\n"


def sizes(results: Mapping[str, Any]) -> str:
    """The rates by the size of what is echoed."""
    medians = results.get("curves", {}).get("sizes", {}).get("medians", {})
    if not medians:
        return ""
    peers = [peer for peer in GRPC if any(peer in found for found in medians.values())]
    rows = [["KiB", *(NAMES[peer] for peer in peers)]]
    rows += [[kib(n), *(number(found.get(p)) for p in peers)] for n, found in medians.items()]
    return _picture("Mebibytes a second by the size of messages", "sizes") + markdown(rows)


def kib(size: str) -> str:
    """A number of octets as the tables have it."""
    return number(int(size) / 1024)


def idle(results: Mapping[str, Any]) -> str:
    """What idle streams and connections take."""
    rows = [["one idle", "in the plugin, KiB", "in the host, KiB"]]
    for name, found in results["idle"]["medians"].items():
        kind, peer = name.split(" / ")
        rows.append([f"{kind}, {NAMES[peer]}", *(number(found[side], 1) for side in SIDES)])
    return markdown(rows)


def costs(results: Mapping[str, Any]) -> str:
    """What is done for a call beside the time that it takes: in the plugin and in the host."""
    heading = ["", "steps of the loop", "system calls", "times asleep", "processor, us"]
    rows = [[cell and f"{cell}: plugin / host" for cell in heading]]
    for workload, peers in results["costs"]["values"].items():
        for peer, sides in peers.items():
            both = [sides.get(side, {}) for side in SIDES]
            columns = [
                [one.get("steps") for one in both],
                [system_calls(one) for one in both],
                [one.get("switches") for one in both],
                [one.get("cpu_us") for one in both],
            ]
            cells = (" / ".join(number(value, 2) for value in column) for column in columns)
            rows.append([f"{WORKLOADS[workload].title}, {NAMES[peer]}", *cells])
    return markdown(rows)


def goals(runs: Sequence[Mapping[str, Any]]) -> str:
    """What is aimed at, and what was measured of it."""
    rows = [["goal", "aim", *_run_titles(runs), "reached"]]
    found: dict[str, list[Figure]] = {}
    for run in runs:
        for goal in run["goals"]:
            figure = Figure(*(goal[field] for field in Figure._fields))
            found.setdefault(figure.name, []).append(figure)
    for name, figures in found.items():
        aim = f"{'at most ' if figures[0].at_most else ''}{figures[0].goal:g}"
        measured = [number(figure.value, 2) for figure in figures]
        measured += [NOTHING] * (len(runs) - len(measured))
        rows.append([name, aim, *measured, _reached([figure.reached for figure in figures])])
    return markdown(rows)


def _reached(answers: Sequence[bool | None]) -> str:
    """Whether it was, in words: of several runs, in how many."""
    known = [answer for answer in answers if answer is not None]
    if not known:
        return NOTHING
    if len(set(known)) == 1:
        return "yes" if known[0] else "no"
    return f"in {sum(known)} of {len(known)}"


def failures(results: Mapping[str, Any]) -> str:
    """How soon a host learns of a failure."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, one in results["failures"]["medians"].items():
        what, loop, error = name.split(" / ")
        found.setdefault((what, error), {})[loop] = one["seconds"] * 1000
    rows = [["failure", "what is raised", "asyncio, ms", "trio, ms"]]
    for (what, error), loops in found.items():
        times = (number(loops.get(loop), 1) for loop in ("asyncio", "trio"))
        rows.append([what, f"`{error}`", *times])
    return markdown(rows).replace("---: |", "--- |", 1)


# What the page has, and which part of the results it needs.
TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "rates": ("calls", rates),
    "others": ("calls", others),
    "callers": ("curves", callers),
    "latencies": ("curves", latencies),
    "startup": ("startup", startup),
    "sizes": ("curves", sizes),
    "breakdown": ("startup", breakdown),
    "many": ("many", many),
    "idle": ("idle", idle),
    "costs": ("costs", costs),
    "failures": ("failures", failures),
}
# Those that have a column for each run.
COMPARED: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {"about": about, "goals": goals}


def filled(page: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The page with its tables made of these results; those without results stay as they are."""

    def table(name: str) -> str:
        if name in COMPARED:
            return COMPARED[name](runs) if all(name in run for run in runs) else ""
        part, make = TABLES[name]
        return make(runs[0]) if part in runs[0] else ""

    def made(match: re.Match[str]) -> str:
        text = table(match["name"])
        return f"{match['before']}\n\n{text}\n\n<!-- end -->" if text else match[0]

    blocks = r"(?P<before><!-- made: (?P<name>[a-z]+) -->)\n.*?<!-- end -->"
    return re.sub(blocks, made, page, flags=re.DOTALL)


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw all pictures for which there are results."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "font.family": "sans-serif",
            "font.size": 10,
            "grid.color": "#dddddd",
            "svg.hashsalt": "the same results give the same file",
        }
    )
    pictures = {
        "bench-calls.svg": ("calls", draw_calls),
        "bench-streams.svg": ("calls", draw_streams),
        "bench-ratios.svg": ("calls", draw_ratios),
        "bench-callers.svg": ("curves", draw_callers),
        "bench-latencies.svg": ("curves", draw_latencies),
        "bench-startup.svg": ("startup", draw_startup),
        "bench-sizes.svg": ("curves", draw_sizes),
        "bench-breakdown.svg": ("startup", draw_breakdown),
        "bench-many.svg": ("many", draw_many),
    }
    made = []
    for name, (part, drawn) in pictures.items():
        if part in results and (figure := drawn(results)) is not None:
            made.append(folder / name)
            figure.savefig(made[-1], metadata={"Date": None}, facecolor="white")
    return made


def _bars(axes: Any, peers: Iterable[str], values: Mapping[str, float], digits: int = 0) -> None:
    shown = [peer for peer in peers if peer in values]
    heights = [values[peer] for peer in shown]
    ours = ("ours", "typed")
    colours = [
        COLOURS.get(peer, "#5b8fce" if peer.startswith(ours) else "#b9b9b9") for peer in shown
    ]
    bars = axes.barh([NAMES[peer] for peer in shown], heights, color=colours, height=0.7)
    axes.bar_label(bars, [number(value, digits) for value in heights], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")


def _workloads(results: Mapping[str, Any], names: Sequence[str], size: tuple[float, float]) -> Any:
    import matplotlib.pyplot as plt

    figure, places = plt.subplots(len(names), figsize=size)
    for axes, name in zip(places, names, strict=True):
        workload = WORKLOADS[name]
        _bars(axes, GRPC, results["calls"]["medians"].get(name, {}))
        axes.set_title(f"{workload.title}: {workload.unit}", loc="left", fontsize=10.5)
    return figure


def draw_calls(results: Mapping[str, Any]) -> Any:
    """Unary calls: one caller, and many."""
    return _workloads(results, ["unary_1", "unary_64"], (8, 4.4))


def draw_streams(results: Mapping[str, Any]) -> Any:
    """Streams, and large messages."""
    names = ["server_stream", "client_stream", "ping_pong", "large_echo", "large_stream"]
    measured = [name for name in names if name in results["calls"]["medians"]]
    return _workloads(results, measured, (8, 2.1 * len(measured)))


def draw_ratios(results: Mapping[str, Any]) -> Any:
    """Each workload, times the baseline."""
    import matplotlib.pyplot as plt

    medians = results["calls"]["medians"]
    names = [name for name in WORKLOADS if medians.get(name, {}).get(BASELINE)]
    figure, axes = plt.subplots(figsize=(8, 4))
    peers = [peer for peer in GRPC if peer != BASELINE]
    height = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        ratios = [medians[name].get(peer, 0) / medians[name][BASELINE] for name in names]
        places = [row + (i - (len(peers) - 1) / 2) * height for row in range(len(names))]
        # From 1 on, to the right or to the left: that is what a scale of ratios can show.
        lengths = [ratio - 1 for ratio in ratios]
        bars = axes.barh(places, lengths, height, left=1, color=COLOURS[peer], label=NAMES[peer])
        axes.bar_label(bars, [f"{ratio:.1f}" for ratio in ratios], padding=3, fontsize=7.5)
    axes.axvline(1, color="#444444", linewidth=0.9)
    axes.set_yticks(range(len(names)), [WORKLOADS[name].title for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"times {NAMES[BASELINE]}, which is 1")
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def draw_callers(results: Mapping[str, Any]) -> Any:
    """Calls a second by the number of callers."""
    import matplotlib.pyplot as plt

    medians = results["curves"]["medians"]
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for peer in GRPC:
        points = [(int(count), found[peer]) for count, found in medians.items() if peer in found]
        if points:
            across, up = zip(*points, strict=True)
            axes.plot(across, up, marker="o", markersize=4, color=COLOURS[peer], label=NAMES[peer])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([int(count) for count in medians], list(medians))
    axes.minorticks_off()
    ticks = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000]
    axes.set_yticks(ticks, [number(tick) for tick in ticks])
    axes.set_xlabel("callers at the same time")
    axes.set_ylabel("calls/s")
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def draw_latencies(results: Mapping[str, Any]) -> Any:
    """The distribution of latencies: the slower a call, the further to the right."""
    import matplotlib.pyplot as plt

    found = results["curves"]["latencies"]
    figure, places = plt.subplots(1, len(found), figsize=(4 * len(found), 3.9), sharey=True)
    shares = ["0", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "0.98", "0.99", "0.995", "0.998"]
    shares.append("0.999")
    marked = {"0.5": "50 %", "0.9": "90 %", "0.99": "99 %", "0.999": "99.9 %"}
    # As far apart as they are rare.
    across = [-math.log10(1 - float(share)) for share in shares]
    for axes, (count, peers) in zip(places, found.items(), strict=True):
        for peer in (peer for peer in GRPC if peer in peers):
            taken = [peers[peer]["microseconds"][share] / 1000 for share in shares]
            axes.plot(across, taken, color=COLOURS[peer], label=NAMES[peer])
        axes.set_yscale("log")
        ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xticks([-math.log10(1 - float(share)) for share in marked], list(marked.values()))
        many = "1 caller" if count == "1" else f"{count} callers"
        axes.set_title(f"{many}: share of calls that took no longer", loc="left", fontsize=10)
    places[0].set_ylabel("milliseconds")
    places[0].legend(frameon=False, fontsize=8)
    return figure


def draw_startup(results: Mapping[str, Any]) -> Any:
    """From the host's start of a plugin to the first reply."""
    import matplotlib.pyplot as plt

    medians = results["startup"]["medians"]
    figure, axes = plt.subplots(figsize=(8, 4.2))
    _bars(axes, STARTS, {name: found["first"] * 1000 for name, found in medians.items()})
    axes.set_title("from the plugin's start to its first reply, ms", loc="left", fontsize=10.5)
    return figure


def draw_sizes(results: Mapping[str, Any]) -> Any:
    """Mebibytes a second by the size of messages; None without any."""
    import matplotlib.pyplot as plt

    medians = results["curves"].get("sizes", {}).get("medians", {})
    if not medians:
        return None
    figure, axes = plt.subplots(figsize=(8, 4.2))
    for peer in (peer for peer in GRPC if any(peer in found for found in medians.values())):
        points = [(int(size), found[peer]) for size, found in medians.items() if peer in found]
        across, up = zip(*points, strict=True)
        axes.plot(across, up, marker="o", markersize=4, color=COLOURS[peer], label=NAMES[peer])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([int(size) for size in medians], [f"{kib(size)} KiB" for size in medians])
    ticks = [2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000]
    axes.set_yticks(ticks, [number(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("size of a message that is echoed, by one caller")
    axes.set_ylabel("MiB/s, both ways")
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def draw_breakdown(results: Mapping[str, Any]) -> Any:
    """What a start takes its time for; None where not all of it was measured."""
    import matplotlib.pyplot as plt

    found = parts_of_a_start(results)
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(8, 2.8))
    colours = dict(
        zip(
            dict.fromkeys(part for parts in found.values() for part in parts),
            ("#d0d0d0", "#a8a8a8", "#8a5fbf", "#1b6ac9", "#7fb2ee", "#4f92dd"),
            strict=True,
        )
    )
    named = set[str]()
    for kind, parts in found.items():
        left = 0.0
        for part, taken in parts.items():
            label = None if part in named else part
            named.add(part)
            bars = axes.barh([kind], taken, left=left, color=colours[part], label=label)
            axes.bar_label(bars, [number(taken)], label_type="center", fontsize=8)
            left += taken
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("milliseconds from the plugin's start to its first reply")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.28))
    return figure


def draw_many(results: Mapping[str, Any]) -> Any:
    """Seconds until so many plugins of one host had replied."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6))
    for name, found in results["many"]["medians"].items():
        fields = {field: field.partition(" of ")[2] or str(MANY) for field in found}
        across = [int(number) for number in fields.values()]
        colour = {"ours-tls-asyncio": "ours-asyncio", "ours-tls-trio": "ours-trio"}.get(name)
        axes.plot(
            across,
            [found[field] for field in fields],
            marker="o",
            markersize=4,
            color=COLOURS[colour] if colour else "#8d8d8d",
            label=NAMES[name],
        )
    axes.set_ylim(0)
    axes.set_xlabel("plugins that have replied")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False, fontsize=8.5)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plots", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="what `python -m tests.bench --json` wrote, of each run"
    )
    options = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in options.runs]
    PAGE.write_text(filled(PAGE.read_text(), runs))
    RESULTS.write_text(json.dumps(runs, indent=1) + "\n")
    for picture in draw(runs[0], DOCS / "pictures"):
        print(picture)


if __name__ == "__main__":
    main()
