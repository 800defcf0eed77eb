"""Calls through clients whose plugins, connections and descriptors are taken away all the time."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import random
import resource
import signal
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
from grpclib.exceptions import GRPCError, StreamTerminatedError

from pyvider_rpcplugin import PoolPolicy, RestartPolicy, RPCPluginClient, plugin_client
from tests.chaos.proxy import Relays
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

PLUGIN = Path(__file__).parent / "plugin.py"

# How often each is chosen. Those of the first group mostly cost a plugin's life.
KINDS = {
    "kill": 4, "stop": 2, "cut": 4, "halve": 4, "delay": 4, "descriptors": 2,
    "host descriptors": 1, "full": 2, "pipe": 3, "clock": 2, "reload": 1,
}  # fmt: skip
_POLICY = RestartPolicy(
    max_restarts=1_000_000, initial_backoff=0.01, max_backoff=0.2,
    health_interval=0.5, health_timeout=2.0, health_failures=2,
)  # fmt: skip
# What a call may take beyond its deadline before it counts as hanging: the machine has other work.
_SLACK = 5.0
# There is room for so many in the books.
_MOST_CALLS = 1 << 22


class Run:
    """One run: what was done, and what came of it."""

    def __init__(self, seed: int, faults: int, loop: str, *, callers: int = 8) -> None:
        self.seed = seed
        self.wanted = faults
        self.loop = loop
        self.callers = callers
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.wrong: list[str] = []
        # By the numbers of the calls; made at once, so that the books do not count as a leak.
        self.once: bytearray = bytearray(_MOST_CALLS)
        self.answered: bytearray = bytearray(_MOST_CALLS)
        self.resident: list[int] = []
        self.longest = 0.0
        self.executed = self.repeated = 0
        self.left: list[str] = []
        self._number = 0
        self._relays = Relays()
        self._done = False

    # --- the whole ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Do it, and fill in the figures."""
        before = descriptors()
        children = {child.pid for child in psutil.Process().children()}
        threads = set(threading.enumerate())
        tasks_before = len(anyio.get_running_tasks())
        with tempfile.TemporaryDirectory(prefix="c-") as folder:
            journal = os.path.join(folder, "journal")
            command = [sys.executable, str(PLUGIN), self.loop, journal]
            options: dict[str, Any] = {
                "restart": _POLICY, "runner": self._relays.runner, "grpc_grace_period": 0.2,
                "log_level": "CRITICAL",
            }  # fmt: skip
            single = plugin_client(command, **options)
            pool = plugin_client(command, pool=PoolPolicy(size=2), **options)
            async with errors_in(self.wrong), single, pool:
                async with anyio.create_task_group() as tasks:
                    for number in range(self.callers):
                        tasks.start_soon(self._call_on, (single, pool)[number % 2], number)
                    await self._do_harm((single, pool))
                    self._done = True
                    if single.exited.is_set() or pool.exited.is_set():
                        self.wrong.append("a client has ended")
            # What could not be removed for a lack of descriptors, the next start removes.
            async with plugin_client(command):
                pass
            await self._wait_idle(tasks_before)
            self._count_executions(Path(journal))
        self._find_leaks(before, children, threads, tasks_before)

    async def _wait_idle(self, tasks_before: int) -> None:
        with anyio.move_on_after(5):
            while len(anyio.get_running_tasks()) > tasks_before:  # noqa: ASYNC110 - none tells
                await anyio.sleep(0.05)

    def report(self) -> str:
        """The figures."""
        lines = [
            f"seed {self.seed}, {self.loop}:",
            f"  {sum(self.faults.values())} faults {dict(sorted(self.faults.items()))}",
            f"  {sum(self.calls.values())} calls {dict(sorted(self.calls.items()))}",
            f"  the latest was {max(self.longest, 0):.2f} s over its deadline",
            (
                f"  {self.executed} calls that are not idempotent were executed, "
                f"{self.repeated} of them more than once"
            ),
            f"  left behind: {'; '.join(self.left) or 'nothing'}",
            f"  host's memory: middle {self.middle / 1024:.0f} KiB, end {self.end / 1024:.0f} KiB",
        ]
        lines += [f"    {count} {reason}" for reason, count in self.reasons.most_common(12)]
        return "\n".join([*lines, *(f"  WRONG: {one}" for one in self.wrong)])

    @property
    def middle(self) -> float:
        """The host's memory at half of the time."""
        return self._resident_until(0.6)

    @property
    def end(self) -> float:
        """The host's memory at the end."""
        return self._resident_until(1)

    def _resident_until(self, share: float) -> float:
        # Of a fifth of the time: with each message and each plugin it swings by a tenth.
        count = len(self.resident)
        return statistics.median(
            self.resident[int(count * (share - 0.2)) : math.ceil(count * share)]
        )

    # --- calls -------------------------------------------------------------------------------

    async def _call_on(self, client: RPCPluginClient, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        plain, idempotent = client.stub(EchoStub), client.stub(EchoStub, idempotent=True)
        while not self._done:
            self._number += 1
            call = self._number
            text = f"{call}"
            kind = rng.choice(["unary", "unary", "large", "idempotent", "server", "client", "bidi"])
            self.once[call] = kind != "idempotent"
            deadline = rng.choice([0.2, 1.0, 10.0])
            began = anyio.current_time()
            try:
                with anyio.fail_after(deadline + _SLACK):
                    stub = idempotent if kind == "idempotent" else plain
                    await one_call(stub, kind, text, deadline, rng)
            except GRPCError as error:
                result = error.status.name
                self.reasons[f"{result}: {(error.message or '')[:110]}"] += 1
                if result not in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}:
                    self.wrong.append(f"call {text} ({kind}): {error}")
            except TimeoutError:
                result = "hangs"
                self.wrong.append(f"call {text} ({kind}) is over its deadline of {deadline} s")
            except (StreamTerminatedError, AssertionError, OSError) as error:
                result = type(error).__name__
                self.wrong.append(f"call {text} ({kind}): {error!r}")
            else:
                result = "OK"
                self.answered[call] = True
            self.longest = max(self.longest, anyio.current_time() - began - deadline)
            self.calls[result] += 1
            await anyio.sleep(rng.random() * 0.01)

    # --- faults ------------------------------------------------------------------------------

    async def _do_harm(self, clients: tuple[RPCPluginClient, ...]) -> None:
        process = psutil.Process()
        kinds, weights = list(KINDS), list(KINDS.values())
        async with anyio.create_task_group() as tasks:
            while sum(self.faults.values()) < self.wanted:
                await anyio.sleep(self.random.uniform(0.0, 0.2))
                [kind] = self.random.choices(kinds, weights)
                client = self.random.choice(clients)
                pids = client.pids
                if not pids:
                    continue
                if await self._harm(kind, client, self.random.choice(pids), tasks):
                    self.faults[kind] += 1
                    if sum(self.faults.values()) % 10 == 0:
                        gc.collect()
                        self.resident.append(process.memory_info().rss)

    async def _harm(self, kind: str, client: RPCPluginClient, pid: int, tasks: Any) -> bool:
        amount = self.random.random()
        relay = self._relays.running.get(pid)
        if kind == "kill":
            return signalled(pid, signal.SIGKILL)
        if kind == "stop":
            tasks.start_soon(stopped, pid, amount)
            return True
        if kind == "reload":
            tasks.start_soon(self._reload, client)
            return True
        if kind == "host descriptors":
            await without_descriptors(amount * 0.2)
            return True
        if kind in {"cut", "halve", "delay"}:
            if relay is None:
                return False
            if kind == "cut":
                relay.cut()
            elif kind == "halve":
                relay.halve = True
            else:
                relay.delay = amount
            return True
        size = {"descriptors": amount, "pipe": 256, "clock": (amount - 0.5) * 1e6}.get(kind, 0)
        tasks.start_soon(self._ask, client, f"fault {kind} {size}")
        return True

    async def _reload(self, client: RPCPluginClient) -> None:
        with contextlib.suppress(Exception):  # It may be killed while it starts.
            await client.reload(drain_timeout=1.0)

    async def _ask(self, client: RPCPluginClient, text: str) -> None:
        with contextlib.suppress(GRPCError):
            await client.stub(EchoStub).Unary(EchoRequest(text=text), timeout=3)

    # --- what is left ------------------------------------------------------------------------

    def _count_executions(self, journal: Path) -> None:
        executed = Counter(journal.read_text().split() if journal.exists() else ())
        once = {str(number) for number, is_so in enumerate(self.once) if is_so}
        repeated = [text for text, count in executed.items() if count > 1 and text in once]
        self.executed = len(executed.keys() & once)
        self.repeated = len(repeated)
        if repeated:
            self.wrong.append(f"executed more than once: {repeated[:10]}")
        answered = {str(number) for number, is_so in enumerate(self.answered) if is_so}
        missing = answered - executed.keys()
        if missing:
            self.wrong.append(f"answered and never executed: {sorted(missing)[:10]}")

    def _find_leaks(
        self,
        before: dict[str, str],
        children: set[int],
        threads: set[threading.Thread],
        tasks: int,
    ) -> None:
        gc.collect()
        left = self.left = [
            f"process {child.pid} {child.cmdline()}"
            for child in psutil.Process().children()
            if child.pid not in children
        ]
        left += [f"descriptor {n} {to}" for n, to in descriptors().items() if before.get(n) != to]
        left += [
            f"thread {thread.name}"
            for thread in set(threading.enumerate()) - threads
            if not thread.name.startswith(("AnyIO worker", "Trio thread", "asyncio_"))
        ]
        left += [f"file {path}" for path in Path(tempfile.gettempdir()).glob("*")]
        if len(anyio.get_running_tasks()) > tasks:
            left += [f"task {task.name}" for task in anyio.get_running_tasks()]
        if left:
            self.wrong.append("left behind: " + "; ".join(left))


async def one_call(stub: Any, kind: str, text: str, deadline: float, rng: random.Random) -> None:
    """Make a call of a kind, and see that its answer is right."""
    if kind in {"unary", "idempotent", "large"}:
        data = bytes(300_000 if kind == "large" else rng.randrange(100))
        message = EchoRequest(text=text, data=data, count=rng.choice([0, 0, 5, 50]))
        reply = await stub.Unary(message, timeout=deadline)
        assert (reply.text, len(reply.data)) == (text, len(data))
    elif kind == "server":
        replies = await stub.ServerStream(EchoRequest(text=text, count=20), timeout=deadline)
        assert [reply.index for reply in replies] == list(range(20))
    elif kind == "client":
        messages = [EchoRequest(text=text, data=bytes(5000))] * 10
        assert (await stub.ClientStream(messages, timeout=deadline)).index == 10
    else:
        async with stub.Bidi.open(timeout=deadline) as stream:
            for index in range(1, 6):
                await stream.send_message(EchoRequest(text=text, data=bytes(1000)), end=index == 5)
                reply = await stream.recv_message()
                if reply is None:
                    await stream.recv_status()
                assert reply is not None
                assert reply.index == index


@asynccontextmanager
async def errors_in(wrong: list[str]) -> AsyncIterator[None]:
    """Note what is logged with a traceback: it was not foreseen."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                wrong.append(logging.Formatter().format(record))

    logger = logging.getLogger("pyvider_rpcplugin")
    handler = Handler(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def signalled(pid: int, number: int) -> bool:
    """Send a signal to a plugin, if it lives."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def stopped(pid: int, seconds: float) -> None:
    """Stop a process for a while."""
    if signalled(pid, signal.SIGSTOP):
        try:
            await anyio.sleep(seconds)
        finally:
            signalled(pid, signal.SIGCONT)


async def without_descriptors(seconds: float) -> None:
    """Let this process open nothing for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        await anyio.sleep(seconds)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> dict[str, str]:
    """What this process has open."""
    found: dict[str, str] = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{number}")
            if target.startswith(("socket:", "pipe:", "anon_inode:", "/memfd:")):
                found[number] = target
    return found


def grown(run: Run) -> float:
    """By which share of itself the host's memory has grown since the middle."""
    return math.inf if not run.middle else run.end / run.middle - 1
