"""What the plugins of a running host do, as a table that goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pyvider_rpcplugin.admin import find_hosts, percentile, report_of
from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.rpc import ConnectionLost

from ._bench import milliseconds
from ._options import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from rich.console import Console

    from pyvider_rpcplugin.admin import ClientReport, HostReport


_LONGEST_COMMAND = 40


def socket_of(host: str | None) -> str:
    """Find the socket of a host.

    Args:
        host: Its process number, or the socket's path; None: the only one that there is.

    Raises:
        TransportError: There is none, or there are several.
    """
    if host is not None and not host.isdecimal():
        return host
    found = find_hosts()
    if host is not None:
        if int(host) in found:
            return found[int(host)]
        msg = f"process {host} shows nothing"
    elif len(found) == 1:
        return next(iter(found.values()))
    elif found:
        msg = f"there are several hosts: {', '.join(map(str, sorted(found)))}"
        raise TransportError(msg, hint="say which one")
    else:
        msg = "no host of this user's shows anything"
    raise TransportError(msg, hint="a host does while it is in `async with admin_socket(...):`")


async def watch(
    path: str, interval: float, once: bool, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Ask a host again and again, and tell what it has done in between, until it ends.

    Args:
        path: Its socket.
        interval: Seconds between two questions.
        once: Whether to do so a single time.
        tell: Is called with each answer.

    Raises:
        TransportError: There is no host.
    """
    async with report_of(path) as host:
        before: HostReport = await host.report()
        while True:
            await anyio.sleep(interval)
            try:
                now: HostReport = await host.report()
            except ConnectionLost:
                errors.print("the host has ended")
                return
            tell(summary(before, now))
            if once:
                return
            before = now


def summary(before: HostReport, now: HostReport) -> dict[str, Any]:
    """What happened between two reports, and how things are."""
    seconds = max(now.time - before.time, 1e-6)
    known = {client.number: client for client in before.clients}
    return {
        "time": now.time,
        "host": now.pid,
        "command": now.command,
        "version": now.version,
        "python": now.python,
        "memory_bytes": now.memory,
        "plugins": [_row(client, known.get(client.number), now, seconds) for client in now.clients],
    }


def _row(
    client: ClientReport, before: ClientReport | None, now: HostReport, seconds: float
) -> dict[str, Any]:
    seen = client.statistics
    failed = sum(seen.calls_failed.values())
    calls = seen.calls_succeeded + failed
    latency = client.latency
    if before is not None:
        was = before.statistics
        # After a stop and a start they begin at zero.
        calls = max(0, calls - was.calls_succeeded - sum(was.calls_failed.values()))
        latency = tuple(late - early for late, early in zip(latency, before.latency, strict=True))
    memory = [size for size in client.memory if size is not None]
    began = min((one.started_at for one in seen.plugins if one.started_at), default=None)
    return {
        "name": seen.name,
        "pids": [one.pid for one in seen.plugins],
        "up_seconds": None if began is None else round(now.time - began, 3),
        "calls_per_second": round(calls / seconds, 1) if before is not None else None,
        "p50_seconds": percentile(latency, 0.5),
        "p99_seconds": percentile(latency, 0.99),
        "calls": seen.calls_started,
        "calls_open": seen.calls_open,
        "calls_waiting": seen.calls_waiting,
        "errors": failed,
        "errors_by_status": seen.calls_failed,
        "restarts": seen.restarts,
        "memory_bytes": sum(memory) if memory else None,
    }


class Screen:
    """Shows what is told: in one place that is drawn again, where a person looks.

    Args:
        console: Where.
        once: Whether there is one table only.
    """

    def __init__(self, console: Console, *, once: bool) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._draws = console.is_terminal and not once

    def __enter__(self) -> Self:
        if self._draws:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._draws:
            self._live.stop()

    def show(self, seen: dict[str, Any]) -> None:
        """Show it."""
        if self._draws:
            self._live.update(table_of(seen), refresh=True)
        else:
            self._console.print(table_of(seen))


def table_of(seen: dict[str, Any]) -> Group:
    """What is shown to a person."""
    head = Text.assemble((f"host {seen['host']}", "bold"), f"  {_program(seen['command'])}  ")
    head.append(_size(seen["memory_bytes"]), style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True)
    # Where the place is short, names are, and not numbers.
    table.add_column("plugin", header_style="cyan")
    columns = ("process", "up", "calls/s", "p50", "p99", "open", "errors", "restarts", "memory")
    for name in columns:
        table.add_column(name, justify="right", header_style="cyan", no_wrap=True)
    for row in seen["plugins"]:
        pids = row["pids"]
        rate = row["calls_per_second"]
        table.add_row(
            escape(row["name"]),
            str(pids[0] or "-") if len(pids) == 1 else f"{len(pids)} of it" if pids else "-",
            _span(row["up_seconds"]),
            "-" if rate is None else f"{rate:,.0f}",
            milliseconds(row["p50_seconds"]),
            milliseconds(row["p99_seconds"]),
            str(row["calls_open"] + row["calls_waiting"]),
            f"[red]{row['errors']}[/red]" if row["errors"] else "0",
            f"[yellow]{row['restarts']}[/yellow]" if row["restarts"] else "0",
            _size(row["memory_bytes"]),
        )
    if not seen["plugins"]:
        return Group(head, Text("no plugin runs", style="dim"))
    return Group(head, table)


def _program(command: list[str]) -> str:
    """A command on one line, which need not be all of it."""
    words = [os.path.basename(word) if "/" in word else word for word in command]
    line = " ".join(" ".join(words).split())
    return line if len(line) <= _LONGEST_COMMAND else f"{line[:_LONGEST_COMMAND]}..."


def _size(octets: int | None) -> str:
    return "-" if octets is None else f"{octets / 1e6:,.0f} MB"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"
