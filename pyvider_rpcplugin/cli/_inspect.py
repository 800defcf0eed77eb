"""What there is to see of a plugin that runs."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from grpclib.exceptions import GRPCError
from rich.markup import escape
from rich.table import Table

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.exception import RPCPluginError

from ._installed import words_of
from ._reflect import catalogue_of

if TYPE_CHECKING:
    from rich.console import Console

    from pyvider_rpcplugin import PluginProgram
    from pyvider_rpcplugin.client import RPCPluginClient

    from ._options import HostOptions

_MOST = 10.0


async def inspect_plugin(
    command: list[str] | PluginProgram, options: HostOptions
) -> dict[str, Any]:
    """Start a plugin, look at it, and end it again.

    Returns:
        All that was seen, as JSON can hold it.

    Raises:
        RPCPluginError: It does not start.
        GRPCError: It cannot be asked.
    """
    # It may have to be made first, which is no part of its start.
    words = await words_of(command, options)
    began = anyio.current_time()
    async with plugin_client(command, env=options.env, **options.settings) as client:
        start = anyio.current_time() - began
        record = client.reattach_config()
        with anyio.fail_after(_MOST):
            found = await catalogue_of(client)
            health = await _health(client)
        return {
            "command": words,
            "pid": client.pid,
            "start_seconds": round(start, 4),
            "memory_bytes": _memory(client.pid),
            "handshake": {
                "core_version": 1,
                "version": client.negotiated_version,
                "network": record.network,
                "address": record.address,
                "protocol": record.protocol,
                "mutual_tls": record.server_cert is not None,
            },
            "certificate": (
                None if record.server_cert is None else describe_certificate(record.server_cert)
            ),
            "health": health,
            "services": [msgspec.to_builtins(service) for service in found.services.values()],
        }


def describe_certificate(pem: str) -> dict[str, Any]:
    """What there is to see of a certificate.

    Raises:
        SecurityError: It is none.
    """
    from pyvider_rpcplugin.crypto import Certificate  # noqa: PLC0415 - loads x509

    found = Certificate.from_der(ssl.PEM_cert_to_DER_cert(pem))
    key = found.key_type if found.curve is None else f"{found.key_type} {found.curve}"
    return {
        "subject": found.subject,
        "issuer": found.issuer,
        "names": list(found.sans),
        "key": f"{key}, {found.key_size} bits",
        "is_ca": found.is_ca,
        "not_before": found.not_before.isoformat(),
        "not_after": found.not_after.isoformat(),
        "days_left": round((found.not_after - datetime.now(UTC)).total_seconds() / 86400, 1),
        "fingerprint": found.fingerprint,
    }


async def _health(client: RPCPluginClient) -> str:
    try:
        await client.ping()
    except GRPCError as exc:
        return exc.status.name
    except RPCPluginError:
        return "NOT_SERVING"
    return "SERVING"


def _memory(pid: int | None) -> int | None:
    """What a process holds in memory, where the system tells."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


def show(seen: dict[str, Any], console: Console) -> None:
    """Show it to a person."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="cyan")
    facts.add_column()
    shake, certificate = seen["handshake"], seen["certificate"]
    healthy = seen["health"] == "SERVING"
    facts.add_row("command", escape(" ".join(seen["command"])))
    facts.add_row("process", str(seen["pid"]))
    facts.add_row("start", f"{seen['start_seconds'] * 1000:.0f} ms")
    if seen["memory_bytes"] is not None:
        facts.add_row("memory", f"{seen['memory_bytes'] / 1e6:.1f} MB")
    facts.add_row("version", str(shake["version"]))
    facts.add_row("address", f"{shake['network']} {escape(shake['address'])}")
    facts.add_row("encryption", "mutual TLS" if shake["mutual_tls"] else "none")
    if certificate is not None:
        until = certificate["not_after"][:10]
        facts.add_row("certificate", f"{escape(certificate['subject'])}, {certificate['key']}")
        facts.add_row("", f"valid until {until}, SHA-256 {certificate['fingerprint'][:23]}...")
    colour = "green" if healthy else "red"
    facts.add_row("health", f"[{colour}]{seen['health']}[/{colour}]")
    console.print(facts)
    for service in seen["services"]:
        if not service["own"]:
            continue
        console.print()
        console.print(f"[bold]{escape(service['name'])}[/bold]  [dim]{service['form']}[/dim]")
        table = Table.grid(padding=(0, 2))
        for method in service["methods"].values():
            takes, gives = method["kind"].split("_")
            left = ("stream of " if takes == "stream" and service["form"] == "protobuf" else "") + (
                method["takes"]
            )
            right = ("stream of " if gives == "stream" else "") + method["gives"]
            table.add_row(f"  {escape(method['name'])}", escape(f"({left})"), f"-> {escape(right)}")
        console.print(table)
    others = [service["name"] for service in seen["services"] if not service["own"]]
    console.print(f"\n[dim]and, as other plugins have them: {escape(', '.join(others))}[/dim]")
