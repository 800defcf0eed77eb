"""A process of the benchmark: the server or the client of one peer.

``python -m tests.bench.child PEER server|client ADDRESS``. It reports on stdout, one JSON value a
line, and ends when stdin does. The line ``counts`` asks for what it has counted, if it was told to
count at all.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import threading
from typing import Any

import anyio

# Not relative: `anyio.to_process` runs this file again, outside of its package.
from tests.bench import counting
from tests.bench.peers import PEERS, Peer
from tests.bench.workloads import CURVES, WORKLOADS, timed

COUNTS = "counts\n"


def main() -> None:
    name, role, address = sys.argv[1:]
    peer = PEERS[name]
    reports = os.dup(1)
    # A library that prints something must not garble the reports.
    os.dup2(2, 1)

    def report(value: object) -> None:
        os.write(reports, json.dumps(value).encode() + b"\n")

    module = importlib.import_module(f"tests.bench.peers.{peer.module}")
    if counting.VARIABLE in os.environ:
        counting.start()
    if role == "server":
        threading.Thread(target=_end_with_stdin, args=[report], daemon=True).start()
        module.serve(address, peer.backend, lambda: report({"versions": _versions(peer)}))
    else:
        anyio.run(_client, module, peer, address, report, backend=peer.backend)


async def _client(module: Any, peer: Peer, address: str, report: Any) -> None:
    async with module.connect(address) as caller:
        report({"versions": _versions(peer)})
        # The loop is blocked between two measurements, on purpose: nothing else is to be done.
        for line in sys.stdin:
            if line == COUNTS:
                report(counting.counts)
                continue
            name, count = line.split()
            try:
                done = await timed((WORKLOADS | CURVES)[name], caller, int(count))
            except Exception as caught:
                error = caught
                while isinstance(error, ExceptionGroup):
                    error = error.exceptions[0]
                report({"error": f"{type(error).__name__}: {error}"})
            else:
                report(done)


def _end_with_stdin(report: Any) -> None:
    for line in sys.stdin:
        if line == COUNTS:
            report(counting.counts)
    os._exit(0)


def _versions(peer: Peer) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in peer.distributions}


if __name__ == "__main__":
    main()
