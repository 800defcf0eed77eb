"""Coverage-guided fuzzing: `python -m tests.fuzz --help`. Needs atheris."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.names import SHARES

# By the status that the fuzzer ends with; SIGINT stops it.
_RESULTS = {0: "ok", 72: "ok, stopped"}
_LIBRARIES = ["pyvider_rpcplugin", "hpack"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="all, if none is named")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--jobs", type=int, default=2, help="targets that run at a time")
    parser.add_argument("--seed", type=int, default=0, help="0: by chance")
    parser.add_argument("--corpus", type=Path, help="a folder that is kept, for the next run")
    parser.add_argument("--machines", type=int, metavar="N", help="run each state machine N times")
    parser.add_argument("--single", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.machines:
        return _run_machines(options.machines)
    if options.single:
        _fuzz(options.targets[0], rest)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        return _run_all(options, options.corpus or Path(temporary))


def _run_all(options: argparse.Namespace, corpus: Path) -> int:
    wanted = options.targets or list(SHARES)
    all_shares = sum(SHARES[name][0] for name in wanted)
    total, failed = 0, []
    print(
        f"{'target':14}{'inputs':>10}{'seconds':>9}{'edges':>7}{'peak MB':>9}  result", flush=True
    )

    def run(name: str) -> tuple[str, str, int, float]:
        runs = -(-options.runs * SHARES[name][0] // all_shares)
        began = time.monotonic()
        report, status = _run_one(name, runs, options.seed, corpus / name)
        return name, report, status, time.monotonic() - began

    with ThreadPoolExecutor(options.jobs) as pool:
        for name, report, status, seconds in pool.map(run, wanted):
            figures = dict(re.findall(r"^stat::(\w+):\s+(\d+)$", report, re.MULTILINE))
            done = int(figures.get("number_of_executed_units", 0))
            edges = (re.findall(r" cov: (\d+)", report) or ["?"])[-1]
            total += done
            print(
                f"{name:14}{done:10}{seconds:9.0f}{edges:>7}"
                f"{figures.get('peak_rss_mb', '?'):>9}  {_RESULTS.get(status, 'FAILED')}",
                flush=True,
            )
            if status not in _RESULTS:
                failed.append(name)
                print("\n".join(report.splitlines()[-30:]), flush=True)
    print(f"{total} inputs in all, {len(failed)} targets failed", flush=True)
    return 1 if failed else 0


def _run_machines(examples: int) -> int:
    from tests.fuzz.machines import MACHINES, run

    for name in MACHINES:
        began = time.monotonic()
        run(name, examples, by_chance=True)
        print(f"{name:14}{examples:10}{time.monotonic() - began:9.0f}  ok", flush=True)
    return 0


def _run_one(name: str, runs: int, seed: int, corpus: Path) -> tuple[str, int]:
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        from tests.fuzz.seeds import seeds

        for number, octets in enumerate(seeds()[name]):
            (corpus / f"seed-{number}").write_bytes(octets)
    command = [sys.executable, "-m", "tests.fuzz", name, "--single", f"-runs={runs}"]
    command += [
        f"-seed={seed}",
        "-print_final_stats=1",
        f"-max_len={SHARES[name][1]}",
        "-timeout=20",
    ]
    # What was found is one file; the report quotes it.
    command += ["-rss_limit_mb=700", f"-artifact_prefix={corpus.parent}/found-{name}-", str(corpus)]
    done = subprocess.run(
        command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, errors="replace",
        check=False, env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    return done.stdout, done.returncode


def _fuzz(name: str, arguments: list[str]) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_LIBRARIES):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
