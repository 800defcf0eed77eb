"""More faults than the tests have time for: `python -m tests.chaos --help`."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import tempfile
import time

import anyio

from tests.chaos import hosts, many, restarts
from tests.chaos.faults import Run, grown

# What the host's memory may be at the end, compared with the middle.
_GROWTH = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help="of: faults, hosts, restarts, many; all by default"
    )
    parser.add_argument("--faults", type=int, default=2000, help="on each loop")
    parser.add_argument("--hosts", type=int, default=100, help="how many are killed, on each loop")
    parser.add_argument(
        "--calls", type=int, default=10_000, help="while plugins are killed, on each loop"
    )
    parser.add_argument("--plugins", type=int, default=100, help="under one host")
    parser.add_argument("--loop", choices=["asyncio", "trio"], help="only on this one")
    parser.add_argument("--seed", type=int, help="by default another one each time")
    options = parser.parse_args()
    # What is logged with a traceback counts as wrong; the rest is as it is with faults.
    logging.getLogger("pyvider_rpcplugin").propagate = False
    logging.getLogger("pyvider_rpcplugin").addHandler(logging.NullHandler())
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"python -m tests.chaos --seed {seed}", flush=True)
    parts = options.parts or ["faults", "hosts", "restarts", "many"]
    loops = [options.loop] if options.loop else ["asyncio", "trio"]
    wrong: list[str] = []
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="pv-", dir="/tmp") as folder:
            tempfile.tempdir = folder
            os.environ["TMPDIR"] = folder
            for loop in loops:
                began = time.monotonic()
                wrong += _part(part, loop, seed, options)
                print(f"  {part} on {loop} took {time.monotonic() - began:.0f} s", flush=True)
    print("all is well" if not wrong else "\n".join(["WRONG:", *wrong]))
    return bool(wrong)


def _part(part: str, loop: str, seed: int, options: argparse.Namespace) -> list[str]:
    if part == "faults":
        run = Run(seed, options.faults, loop)
        anyio.run(run.run, backend=loop)
        gc.collect()
        print(run.report(), f"({grown(run):+.1%})", flush=True)
        if grown(run) > _GROWTH:
            run.wrong.append(f"the host's memory has grown by {grown(run):.1%}")
        return run.wrong
    if part == "hosts":
        return hosts.kill_many(seed, options.hosts, loop)
    if part == "restarts":
        return anyio.run(restarts.run, loop, options.calls, backend=loop)
    return anyio.run(many.run, loop, options.plugins, backend=loop)


if __name__ == "__main__":
    raise SystemExit(main())
