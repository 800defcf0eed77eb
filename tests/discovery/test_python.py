"""What `python_plugin` is told, and what it runs when nothing has to be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyvider_rpcplugin import (
    ConfigError,
    PluginProgram,
    SecureConfig,
    SecurityError,
    TransportError,
    plugin_client,
    python_plugin,
)
from pyvider_rpcplugin.discovery import PreparedProgram
from pyvider_rpcplugin.discovery._environments import cache_folder
from tests.plugins import FOLDER

SCRIPT = str(FOLDER / "echo_plugin.py")


async def test_a_script_that_says_nothing_runs_in_the_hosts_environment(monkeypatch):
    monkeypatch.chdir(FOLDER)
    plugin = python_plugin("echo_plugin.py", "--option")
    assert (plugin.name, plugin.path) == ("echo_plugin", SCRIPT)
    assert await plugin.prepare() == PreparedProgram([sys.executable, SCRIPT, "--option"], {})
    module = python_plugin(module="tests.plugins.echo_plugin", name="echo")
    assert module.name == "echo"
    assert (await module.prepare()).command[1:] == ["-m", "tests.plugins.echo_plugin"]


async def test_a_module_runs_in_the_interpreter_that_was_named(tmp_path):
    other = tmp_path / "other-python"
    other.symlink_to(sys.executable)
    plugin = python_plugin(module="x", python=other)
    assert (await plugin.prepare()).command == [str(other), "-m", "x"]


@pytest.mark.parametrize("files", [None, ["x.py"], ["x.py", "y.py"]])
async def test_the_hosts_checksum_is_checked_before_anything_is_installed(tmp_path, files):
    (tmp_path / "x.py").write_text(
        '# /// script\n# dependencies = ["nothing-of-this-name"]\n# ///\n'
    )
    (tmp_path / "y.py").write_text("")
    plugin = python_plugin(tmp_path / "x.py", cache=tmp_path / "cache", installer="pip")
    secure = SecureConfig("sha256", bytes(32), files=files)
    client = plugin_client(plugin, secure=secure, cwd=tmp_path)
    with pytest.raises(SecurityError, match="do not have the sha256 checksum"):
        await client.start()
    await client.stop()
    assert not (tmp_path / "cache").exists()


async def test_what_the_system_refuses_when_an_environment_is_made_is_a_transport_error(tmp_path):
    maker = tmp_path / "python"
    maker.write_text('#!/bin/sh\nfor folder; do :; done\nmkdir -p "$folder/requirements.txt"\n')
    maker.chmod(0o700)
    cache = tmp_path / "cache"
    plugin = python_plugin("x.py", env=["x"], python=maker, cache=cache, installer="pip")
    with pytest.raises(TransportError, match=f"environments cannot be kept in {cache}"):
        await plugin.prepare()
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


async def test_an_interpreter_that_has_gone_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    plugin = python_plugin("x.py", env=["x"], cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="there is no Python interpreter"):
        await plugin.prepare()


async def test_an_environment_that_exists_is_used_as_it_is(tmp_path):
    plugin = python_plugin(SCRIPT, env=tmp_path / "venv")
    with pytest.raises(ConfigError, match="is no Python environment") as caught:
        await plugin.prepare()
    assert "python -m venv" in str(caught.value.hint)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    prepared = await plugin.prepare()
    assert prepared.command == [str(tmp_path / "venv" / "bin" / "python"), SCRIPT]
    assert prepared.env == {
        "PYTHONHOME": "", "PYTHONPATH": "", "VIRTUAL_ENV": str(tmp_path / "venv")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "a script or a module"),
        ({"script": "x.py", "module": "x"}, "a script or a module"),
        ({"script": "x.py", "env": 5}, "a folder or a list of requirements"),
        ({"script": "x.py", "env": [5]}, "a folder or a list of requirements"),
        ({"script": "x.py", "env": b"x"}, "a folder or a list of requirements"),
        ({"script": "x.py", "env": ["a\nb"]}, "more than one line"),
        ({"script": "x.py", "env": "venv", "python": "python3"}, "python= is for"),
        ({"script": "x.py", "env": [], "installer": "conda"}, "accepted is 'uv' or 'pip'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        python_plugin(**arguments)


async def test_an_interpreter_that_is_not_there_is_an_error(tmp_path):
    plugin = python_plugin(SCRIPT, env=[], python="no-such-python", cache=tmp_path)
    with pytest.raises(ConfigError, match="no Python interpreter 'no-such-python'"):
        await plugin.prepare()
    plugin = python_plugin("no-such-script.py")
    with pytest.raises(ConfigError, match=r"cannot read the plugin's script .*no-such-script.py"):
        await plugin.prepare()


async def test_a_script_without_metadata_runs_in_the_interpreter_that_is_named():
    plugin = python_plugin(SCRIPT, python=sys.executable)
    assert (await plugin.prepare()).command == [sys.executable, SCRIPT]


async def test_a_program_that_is_no_interpreter_has_to_be_given_one(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ConfigError, match="no Python interpreter that plugins could run in"):
        await python_plugin(SCRIPT).prepare()
    plugin = python_plugin(SCRIPT, python=sys.executable)
    assert (await plugin.prepare()).command[0] == sys.executable


def test_the_folder_for_environments_is_that_of_the_user_for_caches(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == "/caches/pyvider-rpcplugin/environments"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_folder() == "/home/ada/.cache/pyvider-rpcplugin/environments"


async def test_what_a_callback_raises_is_logged_and_no_reason_to_stop(tmp_path, caplog):
    plugin = python_plugin(
        SCRIPT, env=[], cache=tmp_path, installer="pip", on_progress=lambda _: 1 / 0
    )
    first = await plugin.prepare()
    assert "environment.callback_failed plugin=echo_plugin" in caplog.text
    # One whose interpreter has gone is made anew.
    os.unlink(first.command[0])
    os.unlink(f"{first.command[0]}3")
    assert await plugin.prepare() == first
    assert os.access(first.command[0], os.X_OK)


async def test_versions_of_python_that_make_no_sense_are_an_error(tmp_path):
    script = tmp_path / "plugin.py"
    script.write_text("# /// script\n# requires-python = 'new'\n# ///\n")
    plugin = python_plugin(script, cache=tmp_path / "cache", installer="pip")
    with pytest.raises(ConfigError, match="requires-python: 'new' says no versions of Python"):
        await plugin.prepare()


async def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o770)
    with pytest.raises(SecurityError, match="others than this user may write"):
        await python_plugin(SCRIPT, env=["x"], cache=cache).prepare()
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="environments cannot be kept in"):
        await python_plugin(SCRIPT, env=["x"], cache=tmp_path / "file").prepare()


async def test_a_script_is_checked_before_what_it_says_is_installed(tmp_path):
    script = tmp_path / "plugin.py"
    script.write_text("# /// script\n# dependencies = ['x']\n# ///\n")
    (tmp_path / "plugin.plugin.toml").write_text(f'checksum = "sha256:{"0" * 64}"\n')
    from pyvider_rpcplugin import discover

    plugin = discover(folder=tmp_path, cache=tmp_path / "cache")["plugin"]
    with pytest.raises(SecurityError, match="checksum"):
        await plugin.prepare()
    assert not (tmp_path / "cache").exists()


@pytest.mark.process
async def test_it_is_the_command_of_a_client():
    plugin = python_plugin(SCRIPT)
    assert isinstance(plugin, PluginProgram)
    assert repr(plugin) == f"<PluginProgram echo_plugin, script {SCRIPT}>"
    async with plugin_client(plugin) as client:
        await client.ping()


def test_only_who_uses_them_loads_them():
    code = (
        "import sys, pyvider_rpcplugin as p\n"
        "p.plugin_client(['x'])\n"
        "assert 'pyvider_rpcplugin.discovery' not in sys.modules\n"
        "p.discover('x*', '.')\n"
        "heavy = {'tomllib', 'importlib.metadata', 'packaging', 'pyvider_rpcplugin.process'}\n"
        "assert not heavy & set(sys.modules) - before, heavy & set(sys.modules)\n"
    ).replace("p.discover", "before = set(sys.modules); p.discover")
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
