"""One service in several forms, each called by each form of client; one table says what works."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin import plugin_client

from .conduct import EXPECTED
from .table import CLIENTS, SERVICES, missing, shares_format, table

PAGE = Path(__file__).parents[2] / "docs" / "stubs.md"
PAIRS = [
    pytest.param(client, service, id=f"{client} to {service}")
    for client in CLIENTS
    for service in SERVICES
    if shares_format(client, service)
]


@pytest.mark.process
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize(("client", "service"), PAIRS)
async def test_each_form_of_client_calls_each_form_of_service(
    client: str, service: str, loop: str, anyio_backend_name: str
) -> None:
    program = SERVICES[service].__file__ or ""
    with anyio.fail_after(10):
        async with plugin_client([sys.executable, program, loop]) as started:
            seen = await CLIENTS[client](started)
    cannot = missing(client, anyio_backend_name)
    assert seen == {name: value for name, value in EXPECTED.items() if name not in cannot}


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(), "put in what `python -m tests.forms.table` prints"
