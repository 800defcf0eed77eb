"""What the page on tests shows runs, and its tables are what there is."""

from __future__ import annotations

import os
import re
import sys
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import HandshakeError, plugin_client, testing
from pyvider_rpcplugin.testing import pytest_plugin
from pyvider_rpcplugin.testing._scripted import STEPS
from tests.pages import DOCS, run_shown, shown

pytestmark = pytest.mark.process

PAGE = "testing.md"
NAMES = {name: getattr(testing, name) for name in testing.__all__}


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}."


@pytest.mark.parametrize("name", ["in memory", "in a process", "scripted"])
async def test_a_block_runs(name: str):
    given = {
        "GRPCError": GRPCError,
        "Greeter": Greeter,
        "HandshakeError": HandshakeError,
        "os": os,
        "plugin_client": plugin_client,
        "pytest": pytest,
    }
    with anyio.fail_after(20):
        await run_shown(PAGE, name, **NAMES, **given)


def test_the_block_about_leaks_runs():
    async def use_a_plugin() -> None:
        async with plugin_client(testing.scripted_plugin()) as client:
            await client.ping()

    exec(shown(PAGE, "leaks"), {**NAMES, "anyio": anyio, "use_a_plugin": use_a_plugin})


def test_the_block_about_certificates_runs(tmp_path: Path):
    exec(shown(PAGE, "certificates"), {**NAMES, "folder": tmp_path, "timedelta": timedelta})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ca.crt", "ca.key", "plugin.crt", "plugin.key",
    ]  # fmt: skip


@pytest.mark.slow
async def test_the_block_about_the_contract_runs(capsys: pytest.CaptureFixture[str]):
    greeter = "from pyvider_rpcplugin import plugin_server\nclass Greeter:\n"
    greeter += "    async def hello(self, name: str) -> str: return name\n"
    greeter += "plugin_server(handler=Greeter(), magic_cookie_key='APP_PLUGIN',"
    greeter += " magic_cookie_value='hello').run()"
    await run_shown(PAGE, "contract", **NAMES, command=[sys.executable, "-c", greeter])
    assert "ok    shutdown: " in capsys.readouterr().out


def test_the_plugin_of_pytest_has_that_name():
    names: dict[str, list[str]] = {}
    exec(shown(PAGE, "conftest.py"), names)
    assert names["pytest_plugins"] == [pytest_plugin.__name__]


def test_the_tables_name_what_there_is():
    text = (DOCS / PAGE).read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {word.partition(":")[0] for row in rows for word in re.findall(r"`([^`]+)`", row)}
    assert named == {*STEPS, *pytest_plugin.__all__}
    listed = set(
        re.findall(r"`(\w+)`", text.partition("`Scripted` has the methods")[2].split(".")[0])
    )
    assert listed == {name for name in vars(testing.Scripted) if not name.startswith("_")}
