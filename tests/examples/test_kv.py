"""Key and value: each host with each plugin, in Python, in Go, and those of go-plugin's own example."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.interop.go import programs

from .readmes import EXAMPLES, run_command

HERE = EXAMPLES / "kv"
THEIRS = "github.com/hashicorp/go-plugin/examples/grpc"

pytestmark = [pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120, func_only=True)]


@pytest.fixture(scope="module")
def built() -> Path:
    packages = ["./host", "./plugin", THEIRS, f"{THEIRS}/plugin-go-grpc"]
    return programs.or_skip(functools.partial(programs.build_in, HERE / "go", *packages))


def plugin_of(built: Path, kind: str) -> str:
    """The command of a plugin: in Go, or in Python on this loop."""
    if kind == "go":
        return str(built / "plugin")
    return shlex.join([sys.executable, str(HERE / "kv_plugin.py"), kind])


def host_of(built: Path, kind: str) -> list[str]:
    """The command of a host: in Go, or in Python on this loop."""
    if kind == "go":
        return [str(built / "host")]
    return ["python", str(HERE / "host.py"), *(["--trio"] if kind == "trio" else [])]


@pytest.mark.thorough
@pytest.mark.parametrize("plugin", ["go", "asyncio", "trio"])
@pytest.mark.parametrize("host", ["go", "asyncio", "trio"])
def test_each_host_works_with_each_plugin(
    built: Path, tmp_path: Path, host: str, plugin: str
) -> None:
    value = "w\N{LATIN SMALL LETTER O WITH DIAERESIS}rld"
    env = {"KV_PLUGIN": plugin_of(built, plugin)}
    run_command(*host_of(built, host), "put", "hello", value, cwd=tmp_path, env=env)
    got = run_command(*host_of(built, host), "get", "hello", cwd=tmp_path, env=env)
    assert got.stdout == f"{value}\n"
    assert (tmp_path / "kv_hello").read_text() == value


@pytest.mark.thorough
@pytest.mark.parametrize("plugin", ["go", "asyncio"])
@pytest.mark.parametrize("host", ["go", "asyncio"])
def test_all_of_them_say_the_same_of_what_is_not_there(
    built: Path, tmp_path: Path, host: str, plugin: str
) -> None:
    env = {"KV_PLUGIN": plugin_of(built, plugin)}
    for key, status in (("nothing", "not_?found"), ("../key", "invalid_?argument")):
        done = run_command(*host_of(built, host), "get", key, cwd=tmp_path, status=1, env=env)
        assert re.search(status, done.stderr, re.IGNORECASE)


@pytest.mark.thorough
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_host_of_go_plugins_own_example_runs_the_plugin(
    built: Path, tmp_path: Path, loop: str
) -> None:
    variables = {"KV_PLUGIN": plugin_of(built, loop), "KV_PROTO": "grpc"}
    host = str(built / "grpc")
    run_command(host, "put", "hello", "world", cwd=tmp_path, quiet=False, env=variables)
    got = run_command(host, "get", "hello", cwd=tmp_path, quiet=False, env=variables)
    assert got.stdout == "world\n"


@pytest.mark.thorough
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_host_runs_the_plugin_of_go_plugins_own_example(
    built: Path, tmp_path: Path, loop: str
) -> None:
    env = {"KV_PLUGIN": str(built / "plugin-go-grpc")}
    host = host_of(built, loop)
    run_command(*host, "put", "hello", "world", cwd=tmp_path, env=env)
    got = run_command(*host, "get", "hello", cwd=tmp_path, env=env)
    assert got.stdout == "world\n\nWritten from plugin-go-grpc\n"


def test_the_two_modules_in_go_use_the_same_releases() -> None:
    """So that what Go has compiled for the one serves the other as well."""
    of_tests, of_example = (
        dict(re.findall(r"^\t(\S+) (v\S+)", (module / "go.mod").read_text(), re.MULTILINE))
        for module in (programs.FOLDER, HERE / "go")
    )
    assert of_example.items() <= of_tests.items()
