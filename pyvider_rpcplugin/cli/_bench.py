"""How fast a plugin is: its start, and the calls of one method."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError
from rich.markup import escape
from rich.table import Table

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.services import PLUGIN_SERVICE
from pyvider_rpcplugin.services._wire import bytes_field

from ._calls import KINDS, codec_of, forms
from ._installed import words_of
from ._reflect import Raw, catalogue_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rich.console import Console

    from pyvider_rpcplugin import PluginProgram
    from pyvider_rpcplugin.client import RPCPluginClient

    from ._options import HostOptions

    Call = Callable[[], Awaitable[object]]

HEALTH = "grpc.health.v1.Health/Check"


async def bench_plugin(
    command: list[str] | PluginProgram,
    options: HostOptions,
    *,
    method: str | None,
    message: str,
    callers: Sequence[int],
    seconds: float,
    starts: int,
    deadline: float | None,
) -> dict[str, Any]:
    """Start a plugin some times, and call it by so many callers at a time.

    Args:
        command: The plugin's.
        options: The host's.
        method: `service/method`; None: the question whether it serves.
        message: The request, as JSON.
        callers: How many call at the same time, in each round.
        seconds: How long each round takes.
        starts: How often it is started.
        deadline: Seconds that a call may take.

    Returns:
        All that was measured, as JSON can hold it.

    Raises:
        RPCPluginError: It does not start, or has no such method.
        GRPCError: The first call failed.
    """
    # Its environment may have to be made first, which is no part of a start.
    words = await words_of(command, options)
    took: list[float] = []
    rounds: list[dict[str, Any]] = []
    name = HEALTH
    for number in range(starts):
        began = time.perf_counter()
        async with plugin_client(command, env=options.env, **options.settings) as client:
            took.append(time.perf_counter() - began)
            if number < starts - 1:
                continue
            name, call = await _caller(client, method, message, deadline)
            await call()
            rounds += [await _round(call, many, seconds) for many in callers]
    return {
        "command": words,
        "method": name,
        "starts": starts,
        "start_seconds": {
            "median": round(statistics.median(took), 4),
            "min": round(min(took), 4),
            "max": round(max(took), 4),
        },
        "rounds": rounds,
    }


async def _caller(
    client: RPCPluginClient, method: str | None, message: str, deadline: float | None
) -> tuple[str, Call]:
    """What makes one call, and what it calls."""
    channel: Any = client.grpc_channel
    codec: Any = None
    kind = Cardinality.UNARY_UNARY
    name = HEALTH
    if method is None:
        data = Raw(bytes_field(1, PLUGIN_SERVICE.encode()))
    else:
        catalogue = await catalogue_of(client)
        service, found = catalogue.find(method)
        kind = KINDS[found.kind]
        name = f"{service.name}/{found.name}"
        if kind.client_streaming:
            msg = f"{name} takes a stream: only methods that take one message are measured"
            raise RPCPluginError(msg, phase="call")
        write, _ = forms(catalogue, service, found)
        data = Raw(write(message, 0))
        codec = codec_of(service)

    def request() -> Any:
        return channel.request(f"/{name}", kind, Raw, Raw, timeout=deadline, codec=codec)

    async def stream() -> None:
        async with request() as call:
            await call.send_message(data, end=True)
            async for _ in call:
                pass

    return name, stream if kind.server_streaming else lambda: request().unary(data)


async def _round(call: Call, callers: int, seconds: float) -> dict[str, Any]:
    took: list[float] = []
    failed: dict[str, int] = {}
    now = time.perf_counter

    async def work() -> None:
        while (began := now()) < end:
            try:
                await call()
            except GRPCError as exc:
                failed[exc.status.name] = failed.get(exc.status.name, 0) + 1
            else:
                took.append(now() - began)
            await anyio.lowlevel.checkpoint()

    start = now()
    end = start + seconds
    with unwrapped():
        async with anyio.create_task_group() as tg:
            for _ in range(callers):
                tg.start_soon(work)
    elapsed = now() - start
    took.sort()
    return {
        "callers": callers,
        "seconds": round(elapsed, 3),
        "calls": len(took),
        "calls_per_second": round(len(took) / elapsed, 1),
        "latency": {
            name: _percentile(took, share)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
        },
        "errors": failed,
    }


def _percentile(took: list[float], share: float) -> float | None:
    """In an ordered list, what that share is not above."""
    return round(took[math.ceil(share * len(took)) - 1], 7) if took else None


def show_bench(seen: dict[str, Any], console: Console) -> None:
    """Show it to a person."""
    start = seen["start_seconds"]
    console.print(
        f"start: {start['median'] * 1000:.0f} ms "
        f"(from {start['min'] * 1000:.0f} to {start['max'] * 1000:.0f}, of {seen['starts']})"
    )
    console.print(f"calls of {escape(seen['method'])}:")
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for head in ("callers", "calls/s", "p50", "p90", "p99", "max", "errors"):
        table.add_column(head, justify="right", header_style="cyan")
    for one in seen["rounds"]:
        errors = ", ".join(f"{number} {name}" for name, number in one["errors"].items())
        table.add_row(
            str(one["callers"]),
            f"{one['calls_per_second']:,.0f}",
            *(milliseconds(value) for value in one["latency"].values()),
            f"[red]{errors}[/red]" if errors else "0",
        )
    console.print(table)


def milliseconds(seconds: float | None) -> str:
    """A duration, for people."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"
