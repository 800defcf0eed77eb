"""Calls of a pool whose plugins are killed once a second, and reloaded once."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import anyio
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import RestartPolicy, plugin_pool
from tests.chaos.faults import PLUGIN, signalled
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

_CALLERS = 8


async def run(loop: str, calls: int, interval: float = 1.0) -> list[str]:
    """Make so many calls, half of them idempotent; print and return what is wrong."""
    results: Counter[str] = Counter()
    wrong: list[str] = []
    kills = number = 0
    seconds = 0.0
    # Each call takes a while in the plugin, so that some are always under way.
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        journal = Path(folder, "journal")
        policy = RestartPolicy(max_restarts=100_000, initial_backoff=0.01, max_backoff=0.05)
        command = [sys.executable, str(PLUGIN), loop, str(journal)]
        async with plugin_pool(command, size=2, restart=policy) as pool:
            stubs = {
                "plain": pool.stub(EchoStub),
                "idempotent": pool.stub(EchoStub, idempotent={"Unary"}),
            }

            async def call() -> None:
                nonlocal number
                while number < calls:
                    number += 1
                    kind = "idempotent" if number % 2 else "plain"
                    text = f"{kind}{number}"
                    try:
                        request = EchoRequest(text=text, count=5)
                        reply = await stubs[kind].Unary(request, timeout=60)
                    except GRPCError as error:
                        results[f"{kind} {error.status.name}"] += 1
                        if kind == "idempotent" or error.status.name != "UNAVAILABLE":
                            wrong.append(f"{text}: {error}")
                    else:
                        assert reply.text == text
                        results[f"{kind} OK"] += 1

            async def kill() -> None:
                nonlocal kills
                while True:
                    await anyio.sleep(interval)
                    pids = pool.pids
                    if pids:
                        kills += signalled(pids[kills % len(pids)], signal.SIGKILL)

            async def reload() -> None:
                await anyio.sleep(2.5 * interval)
                try:
                    await pool.reload()
                except Exception as error:  # A new one may be killed as well.
                    results[f"reload: {type(error).__name__}"] += 1
                else:
                    results["reload: OK"] += 1

            began = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill)
                tasks.start_soon(reload)
                async with anyio.create_task_group() as callers:
                    for _ in range(_CALLERS):
                        callers.start_soon(call)
                tasks.cancel_scope.cancel()
            seconds = anyio.current_time() - began
        executed = Counter(journal.read_text().split())  # noqa: ASYNC240 - nothing runs any more
    repeated = [one for one, count in executed.items() if count > 1]
    harmful = [one for one in repeated if one.startswith("plain")]
    wrong += [f"{one} was executed {executed[one]} times" for one in harmful]
    print(
        f"{loop}: {calls} calls in {seconds:.1f} s with {kills} kills: "
        f"{dict(sorted(results.items()))}, executed again: {len(repeated) - len(harmful)} "
        f"idempotent, {len(harmful)} others",
        flush=True,
    )
    return wrong
