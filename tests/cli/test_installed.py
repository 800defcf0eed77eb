"""Listing plugins, and starting one by its name."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.discovery.packages import installed, library, wheel

from .program import GREETER, as_json, cli, printed

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    program = tmp_path / "greeter.py"
    shutil.copy(GREETER[1], program)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    (tmp_path / "greeter.plugin.toml").write_text(
        f'version = "1.2"\ndescription = "Says [hello]."\nchecksum = "sha256:{digest}"\n'
    )
    return tmp_path


def test_what_is_installed_is_listed(folder: Path):
    seen = as_json("list", "--json", str(folder))
    assert seen == {
        "plugins": [
            {
                "name": "greeter",
                "version": "1.2",
                "description": "Says [hello].",
                "protocol_versions": [],
                "checksum": True,
                "source": "manifest",
                "path": str(folder / "greeter.plugin.toml"),
            }
        ],
        "errors": [],
    }
    shown = printed("list", str(folder))
    assert "Says [hello]." in shown
    (folder / "other.plugin.toml").write_text("name = 3")
    seen = as_json("list", "--json", str(folder), status=1)
    assert len(seen["plugins"]) == len(seen["errors"]) == 1
    assert "other.plugin.toml is wrong: name: " in printed("list", str(folder), status=1)


def test_a_place_that_is_none_is_wrong_usage(folder: Path):
    done = cli("list", str(folder / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_a_plugin_is_started_by_its_name(folder: Path):
    assert printed("call", "--from", str(folder), "greeter", "--", "hello", '{"name": "Ada"}') == (
        '"Hello, Ada."\n'
    )
    seen = as_json("inspect", "--json", "--from", str(folder), "greeter")
    assert seen["command"] == [sys.executable, str(folder / "greeter.py")]
    assert printed("doctor", "--from", str(folder), "greeter")
    quick = ("--json", "--seconds", "0.1", "--callers", "1", "--starts", "1")
    measured = as_json(
        "bench", *quick, "--from", str(folder), "greeter", "--", "hello", '{"name": ""}'
    )
    assert measured["command"] == seen["command"]
    done = cli("inspect", "--from", str(folder), "nothing")
    assert done.returncode == 2
    assert "Installed: greeter." in done.stderr
    (folder / "greeter.py").write_text("")
    done = cli("inspect", "--from", str(folder), "greeter")
    assert done.returncode == 1
    assert "checksum" in done.stderr


def test_the_plugins_of_another_environment_are_found_and_run_there(tmp_path: Path):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    module = Path(GREETER[1]).read_text()
    made = wheel(tmp_path, "hello", files={"hello.py": module}, plugins={"greeter": "hello"})
    for one in (made, library(tmp_path)):
        installed(packages, one)
    seen = as_json("list", "--json", str(environment))
    assert [plugin["name"] for plugin in seen["plugins"]] == ["greeter"]
    seen = as_json("inspect", "--json", "--from", str(environment), "greeter")
    assert seen["command"][0] == str(environment / "bin" / "python")


@pytest.mark.parametrize("command", ["check", "doctor", "inspect"])
def test_a_program_without_its_checksum_is_not_run(tmp_path: Path, command: str):
    program = tmp_path / "tool"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o700)
    manifest = f'checksum = "sha256:{"00" * 32}"\n'
    (tmp_path / "tool.plugin.toml").write_text(manifest)
    done = cli(command, "--from", str(tmp_path), "tool")
    assert done.returncode == 1
    assert "checksum" in done.stderr
    assert not (tmp_path / "ran").exists()
