"""Plugins that installed distributions offer."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin import ConfigError, discover, plugin_client

from .packages import installed, library, wheel

MODULE = """\
import os, sys
from pyvider_rpcplugin import plugin_server

class Told:
    async def told(self) -> list[str]:
        return [sys.prefix, str(os.getpid()), *sys.argv]

server = plugin_server(handler=Told())

def main():
    server.run()

if __name__ == "__main__":
    main()
"""
PLUGINS = {"by_function": "told:main", "by_server": "told:server", "by_module": "told"}


class Told:
    async def told(self) -> list[str]:
        raise NotImplementedError


def test_those_of_this_environment_are_found_by_their_metadata(tmp_path, monkeypatch):
    made = wheel(tmp_path, "told", "2.1", files={"told.py": "1 / 0"}, plugins=PLUGINS)
    installed(tmp_path / "site", made)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = discover(entry_points=True)
    assert set(PLUGINS) <= set(found)
    plugin = found["by_server"]
    assert (plugin.version, plugin.description) == ("2.1", "What told does")
    assert plugin.source == "entry point"
    assert plugin.path == str(tmp_path / "site" / "told-2.1.dist-info")


def test_an_entry_point_that_names_nothing_is_an_error(tmp_path):
    folder = environment(tmp_path)
    made = wheel(tmp_path, "told", plugins={"bad": "no module!", "good": "told"})
    installed(site_packages(folder), made)
    found = discover(environments=[folder])
    assert list(found) == ["good"]
    with pytest.raises(ConfigError, match=r"the entry point bad in .* is wrong: 'no module!'"):
        _ = found["bad"]


def test_two_distributions_with_one_name_are_told_apart(tmp_path):
    folder = environment(tmp_path)
    for name in ("one", "two"):
        installed(site_packages(folder), wheel(tmp_path, name, plugins={"same": name}))
    found = discover(environments=[folder])
    assert not found
    [error] = found.errors
    assert "one-1.0.dist-info" in error.message
    assert "two-1.0.dist-info" in error.message


def test_a_folder_that_is_no_environment_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no Python environment"):
        discover(environments=[tmp_path])


def environment(folder: Path) -> Path:
    """Make an empty virtual environment."""
    path = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    return path


def site_packages(environment: Path) -> Path:
    scheme = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", "venv", scheme))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("entry_points.txt", b"[pyvider_rpcplugin.plugins]\nno value\n"),
        ("entry_points.txt", b"[pyvider_rpcplugin.plugins]\na = \xff\n"),
        ("METADATA", b"Name: \xff\n"),
    ],
)
def test_a_broken_distribution_is_an_error_and_hides_no_other(tmp_path, monkeypatch, file, content):
    site = tmp_path / "site"
    installed(site, wheel(tmp_path, "good", plugins={"good": "told"}))
    installed(site, wheel(tmp_path, "bad", plugins={"bad": "told"}))
    (site / "bad-1.0.dist-info" / file).write_bytes(content)
    monkeypatch.syspath_prepend(str(site))
    found = discover(entry_points=True)
    assert "good" in found
    (error,) = found.errors
    assert error.message.startswith(f"the metadata of {site / 'bad-1.0.dist-info'} cannot be read")


def test_a_distribution_without_a_version_has_an_empty_one(tmp_path, monkeypatch):
    installed(tmp_path / "site", wheel(tmp_path, "told", plugins={"told": "told"}))
    (tmp_path / "site" / "told-1.0.dist-info" / "METADATA").write_text("Name: told\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert discover(entry_points=True)["told"].version == ""


@pytest.mark.process
async def test_those_of_another_environment_are_found_and_run_in_it(tmp_path, monkeypatch):
    folder = await anyio.to_thread.run_sync(environment, tmp_path)
    made = wheel(tmp_path, "told", files={"told.py": MODULE}, plugins=PLUGINS)
    for one in (made, library(tmp_path)):
        installed(site_packages(folder), one)
    # It does not see what the host sees, nor what lies in the working folder.
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "told.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "host"))
    found = discover(environments=[folder])
    assert list(found) == sorted(PLUGINS)
    for name in PLUGINS:
        with anyio.fail_after(10):
            async with plugin_client(found[name], cwd=tmp_path / "host") as client:
                started = client.pid
                prefix, pid, *arguments = await client.proxy(Told).told()
        assert prefix == str(folder)
        # The process that was started is the interpreter, and no wrapper of it.
        assert int(pid) == started
        assert [Path(one).name for one in arguments] == [
            "told.py" if name == "by_module" else "told"
        ]
