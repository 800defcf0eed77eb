"""The doctor names the true cause of each broken plugin."""

from __future__ import annotations

import itertools
import os
import platform
import struct
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pyvider_rpcplugin.cli._doctor import Diagnosis, diagnose
from pyvider_rpcplugin.config import load_settings
from pyvider_rpcplugin.testing import scripted_plugin
from tests.interop.go.conftest import go_programs  # noqa: F401 - a fixture

from .program import GREETER, as_json, printed

pytestmark = pytest.mark.process

PYTHON = sys.executable


def script(folder: Path, text: str, *, name: str = "plugin.py", mode: int = 0o755) -> str:
    path = folder / name
    path.write_bytes(textwrap.dedent(text).encode())
    path.chmod(mode)
    return str(path)


def elf(folder: Path) -> str:
    """A program for a machine that this is not."""
    machine = 183 if platform.machine() == "x86_64" else 62
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)
    path = folder / "plugin"
    path.write_bytes(head)
    path.chmod(0o755)
    return str(path)


def empty(folder: Path) -> str:
    return script(folder, "", name="empty")


SERVE = """
    import sys
    from pyvider_rpcplugin import plugin_server
    class Greeter:
        async def hello(self, name: str) -> str:
            return name
    server = plugin_server(handler=Greeter(){options})
    {before}
    server.run()
"""


def served(folder: Path, options: str = "", before: str = "") -> list[str]:
    return [PYTHON, script(folder, SERVE.format(options=options, before=before))]


LONG = "/tmp/" + "long/" * 30

# What each plugin is, and the cause that is to be named.
BROKEN: dict[str, Any] = {
    "not-found": lambda folder: [str(folder / "nowhere")],
    "is-folder": lambda folder: [str(folder)],
    "not-executable": lambda folder: [script(folder, "#!/bin/sh\n", mode=0o644)],
    "line-ends": lambda folder: [script(folder, "#!/bin/sh\r\necho\r\n")],
    "no-interpreter": lambda folder: [script(folder, "#!/opt/python9/bin/python\n")],
    "no-shebang": lambda folder: [script(folder, "print('hello')\n")],
    "empty": lambda folder: [empty(folder)],
    "architecture": lambda folder: [elf(folder)],
    "script-not-found": lambda folder: [PYTHON, str(folder / "nowhere.py")],
    "import-error": lambda folder: [PYTHON, script(folder, "import nobody_has_this\n")],
    "syntax-error": lambda folder: [PYTHON, script(folder, "def plugin(:\n")],
    "cookie": lambda folder: served(folder, ", magic_cookie_key='ANOTHER'"),
    "exited": lambda _: scripted_plugin("stderr:no database", "exit:3"),
    "killed": lambda _: scripted_plugin("signal:SIGSEGV"),
    "silent": lambda _: scripted_plugin("hang"),
    "noise": lambda _: scripted_plugin("lines:3", "hang"),
    "stdout-closed": lambda _: scripted_plugin("close-stdout", "hang"),
    "bad-line": lambda _: scripted_plugin("stdout:1|1|unix", "hang"),
    "core-version": lambda _: scripted_plugin("stdout:2|1|unix|/nowhere|grpc", "hang"),
    "version": lambda _: scripted_plugin("stdout:1|7|unix|/nowhere|grpc", "hang"),
    "netrpc": lambda _: scripted_plugin("stdout:1|1|unix|/nowhere|netrpc", "hang"),
    "certificate": lambda _: scripted_plugin(f"stdout:1|1|unix|/nowhere|grpc|{'A' * 80}", "hang"),
    "socket-missing": lambda _: scripted_plugin("stdout:1|1|unix|/nowhere/at/all|grpc", "hang"),
    "path-too-long": lambda folder: served(folder, f", transport_path={LONG + 'socket'!r}"),
    "nobody-listens": lambda _: scripted_plugin("stdout:1|1|tcp|127.0.0.1:1|grpc", "hang"),
    "not-grpc": lambda _: scripted_plugin("not-grpc"),
    "unhealthy": lambda folder: served(folder, before="server.health.set_status('plugin', 2)"),
    "does-not-end": lambda _: scripted_plugin("ignore-shutdown"),
    "no-mtls": lambda folder: served(folder, ", auto_mtls=False"),
}


async def found(command: list[str], **settings: Any) -> Diagnosis:
    chosen = load_settings(None, overrides={"handshake_timeout": 4, **settings}, side="host")
    return await diagnose(command, chosen)


# What is wrong is in the plugin, whatever loop the doctor itself runs on: each is tried on one.
@pytest.mark.parametrize(
    ("cause", "anyio_backend"),
    list(zip(BROKEN, itertools.cycle(["asyncio", "trio"]), strict=False)),
)
async def test_the_true_cause_is_named(cause: str, tmp_path: Path):
    quick = {"handshake_timeout": 1} if cause in {"silent", "noise"} else {}
    diagnosis = await found(BROKEN[cause](tmp_path), **quick)
    assert diagnosis.finding is not None
    assert diagnosis.finding.cause == cause, diagnosis.finding
    assert diagnosis.finding.summary
    assert diagnosis.finding.advice


async def test_a_program_that_only_ends_is_asked_whether_it_serves():
    diagnosis = await found(scripted_plugin("exit:0"))
    assert diagnosis.finding is not None
    assert diagnosis.finding.cause == "exited"
    assert "does it serve" in diagnosis.finding.advice


async def test_a_plugin_in_good_health_has_nothing():
    diagnosis = await found(GREETER)
    assert diagnosis.finding is None
    assert {"handshake line", "health", "end", "mutual TLS"} <= {
        fact.what for fact in diagnosis.facts
    }


@pytest.mark.interop
async def test_plugins_in_go_are_understood(go_programs: Path):  # noqa: F811
    command = [str(go_programs / "plugin")]
    known = {"magic_cookie_key": "INTEROP_COOKIE", "magic_cookie_value": "interop"}
    assert (await found(command, **known)).finding is None
    broken: list[tuple[list[str], dict[str, Any], str]] = [
        ([], {}, "cookie"),
        ([], {**known, "protocol_versions": [3]}, "version"),
        (["-netrpc"], known, "netrpc"),
    ]
    for options, settings, cause in broken:
        finding = (await found([*command, *options], **settings)).finding
        assert finding is not None
        assert finding.cause == cause


def test_the_command_shows_the_cause_and_what_to_do(tmp_path: Path):
    path = script(tmp_path, "#!/bin/sh\n", mode=0o644)
    shown = printed("doctor", path, status=1)
    assert f"not-executable: {path} is not executable" in shown
    assert f"What to do: chmod +x {path}" in shown
    said = as_json("doctor", "--json", path, status=1)
    assert said["finding"]["cause"] == "not-executable"


def test_its_last_words_are_shown():
    said = as_json("doctor", "--json", *scripted_plugin("stderr:no database", "exit:3"), status=1)
    assert said["finding"]["evidence"] == ["no database"]


def test_without_a_plugin_the_machine_alone_is_looked_at():
    assert "temporary folder" in printed("doctor")
    facts = {fact["what"]: fact["note"] for fact in as_json("doctor", "--json")["facts"]}
    assert facts["Python"] == platform.python_version()
    assert os.environ["TMPDIR"] in facts["temporary folder"]


def test_a_healthy_plugin_has_status_0():
    assert "Nothing is wrong with this plugin." in printed("doctor", *GREETER)
