"""The table of forms in docs/stubs.md: `python -m tests.forms.table` prints it.

The test runs every cell of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from . import (
    betterproto2_form,
    blocking_form,
    grpcio_form,
    grpclib_form,
    threads_form,
    typed_form,
)

SERVICES: dict[str, ModuleType] = {
    "grpclib": grpclib_form,
    "grpc.aio": grpcio_form,
    "grpcio in threads": threads_form,
    "betterproto2": betterproto2_form,
    "plain class": typed_form,
}
CLIENTS: dict[str, Callable[[Any], Awaitable[dict[str, Any]]]] = {
    "grpclib": grpclib_form.conduct,
    "grpc.aio": grpcio_form.conduct,
    "grpcio, blocking": blocking_form.conduct_grpcio,
    "betterproto2": betterproto2_form.conduct,
    "betterproto2, blocking": blocking_form.conduct_betterproto2,
    "plain class": typed_form.conduct,
}
TYPED = "plain class"


def shares_format(client: str, service: str) -> bool:
    """Whether what goes over the wire is the same: a plain class answers both formats."""
    return client != TYPED or service == TYPED


def missing(client: str, loop: str) -> set[str]:
    """What a form of client cannot do on a loop."""
    return {"bidi"} if (client, loop) == ("betterproto2", "trio") else set()


def cell(client: str, service: str) -> str:
    """What the table says of a pair."""
    if not shares_format(client, service):
        return "-"
    return "both loops, [1]" if missing(client, "trio") else "both loops"


def table() -> str:
    """The table."""
    lines = [
        f"| client | {' | '.join(SERVICES)} |",
        f"| --- |{' --- |' * len(SERVICES)}",
    ]
    for client in CLIENTS:
        cells = [cell(client, service) for service in SERVICES]
        lines.append(f"| {client} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201
