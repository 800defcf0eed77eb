"""Hosts that are killed at any moment, and what is left of their plugins."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.plugins import echo

ROOT = Path(__file__).parents[2]
LIMIT = 2.0

# One plugin of ours, and a program that notices nothing, with a child of its own.
_DEAF = "trap '' TERM HUP INT PIPE; sleep 1000 & wait; wait"
_HOST = """
import os, sys
import anyio
from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.process import start_process
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
async def main():
    async with start_process(["/bin/sh", "-c", sys.argv[2]], env=dict(os.environ)):
        async with plugin_client(sys.argv[4:]) as client:
            if sys.argv[3] == "once":
                return
            stub = client.stub(EchoStub)
            while True:
                await stub.Unary(EchoRequest(text="x", data=bytes(10_000)))
anyio.run(main, backend=sys.argv[1])
"""


def _host(loop: str, how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _HOST, loop, _DEAF, how, *echo("--loop", loop)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )


def kill_one(loop: str, after: float, limit: float = LIMIT) -> list[str]:
    """Kill a host after so many seconds; return what is still there when `limit` have passed."""
    with _host(loop, "on") as host:
        try:
            host.wait(after)
        except subprocess.TimeoutExpired:
            pass
        else:
            return [f"the host has ended by itself: {host.returncode}"]
        # Started by it, but not in its folder: the guardian, which has no environment.
        known = {child.pid for child in psutil.Process(host.pid).children(recursive=True)}
        host.send_signal(signal.SIGKILL)
        host.wait()
    give_up = time.monotonic() + limit
    while left := [process for process in psutil.process_iter() if _is_ours(process, known)]:
        if time.monotonic() > give_up:
            names = [f"{process.pid} {_words(process)}" for process in left]
            for process in left:
                process.kill()
            return [f"killed after {after:.3f} s, left: {', '.join(names)}"]
        time.sleep(0.02)
    return []


def clean_up(loop: str) -> list[str]:
    """Start and stop a host, which removes what killed ones have left; return what is still there."""
    with _host(loop, "once") as host:
        host.wait()
    return [f"file {path}" for path in Path(os.environ["TMPDIR"]).rglob("*")]


def kill_many(seed: int, hosts: int, loop: str) -> list[str]:
    """Kill so many, and print what came of it."""
    rng = random.Random(seed)
    began = time.monotonic()
    with _host(loop, "once") as host:  # How long a whole start takes here.
        host.wait()
    longest = 1.2 * (time.monotonic() - began)
    moments = [rng.uniform(0, longest) for _ in range(hosts)]
    left = [what for moment in moments for what in kill_one(loop, moment)]
    files = clean_up(loop)
    print(
        f"{loop}: {hosts} hosts killed within {longest:.2f} s of their start: {len(left)} times "
        f"something was left after {LIMIT:g} s, {len(files)} files after the next start",
        flush=True,
    )
    return left + files


def _is_ours(process: psutil.Process, known: set[int]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.pid in known:
            return True
        environment = process.environ()
    except psutil.Error:
        return False
    return process.pid != os.getpid() and environment.get("TMPDIR") == os.environ["TMPDIR"]


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:80]
    except psutil.Error:
        return "gone"
