"""The code of the page on what can be seen of a plugin."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import PluginHost, plugin_client
from pyvider_rpcplugin.admin import admin_socket
from tests.pages import ROOT, run_shown, shown
from tests.plugins import echo

pytestmark = pytest.mark.process

PAGE = "observability.md"


@pytest.fixture
def greeter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The interface of the quick start's plugin, in whose folder this runs."""
    folder = ROOT / "examples" / "quickstart"
    monkeypatch.chdir(folder)
    code: dict[str, Any] = {"__name__": "greeter_plugin"}
    exec((folder / "greeter_plugin.py").read_text(), code)
    return code["Greeter"]


async def test_counters(greeter: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"plugin_client": plugin_client, "sys": sys, "Greeter": greeter}
    await run_shown(PAGE, "counters", **names)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "1 {} 0"
    assert second.split()[1:3] == ["1", "0"]


async def test_a_handler_that_waits_for_an_event() -> None:
    ended: list[Any] = []
    exec(shown(PAGE, "events"), {"logging": logging, "ended": ended})
    logger = logging.getLogger("pyvider_rpcplugin")
    [handler] = [one for one in logger.handlers if type(one).__name__ == "Alarm"]
    try:
        with anyio.fail_after(10):
            async with plugin_client(echo()) as client:
                pid = client.pid or 0
                os.kill(pid, signal.SIGKILL)
                await client.exited.wait()
    finally:
        logger.removeHandler(handler)
    assert ended == [("echo_plugin", pid, -signal.SIGKILL)]


def test_opentelemetry_is_switched_on() -> None:
    pytest.importorskip("opentelemetry")
    names: dict[str, Any] = {"sys": sys}
    exec(shown(PAGE, "otel"), names)
    assert repr(names["client"]) == "<RPCPluginClient greeter_plugin not running>"


def test_what_is_set_up_for_prometheus_is_code() -> None:
    compile(shown(PAGE, "prometheus"), PAGE, "exec")


async def test_a_host_that_shows_what_its_plugins_do(
    greeter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "PluginHost": PluginHost,
        "admin_socket": admin_socket,
        "sys": sys,
        "Greeter": greeter,
    }
    with tempfile.TemporaryDirectory() as folder:  # Not tmp_path: sockets have short paths.
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        seen = await run_shown(PAGE, "admin", **names)
    assert seen["client"].statistics().starts == 1
