"""The fixtures, in a test session of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

TESTS = """
import os
import pytest

pytestmark = pytest.mark.anyio

class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name} from {os.getpid()}."

async def test_in_memory(connected_plugin):
    client = await connected_plugin(Greeter())
    assert await client.proxy(Greeter).hello("Ada") == f"Hello, Ada from {os.getpid()}."

async def test_in_a_process(launched_plugin):
    client = await launched_plugin(Greeter)
    assert await client.proxy(Greeter).hello("Ada") == f"Hello, Ada from {client.pid}."

def test_certificates(plugin_authority, nothing_leaked):
    assert plugin_authority.issue().pem

def test_that_leaks(nothing_leaked):
    os.dup(os.pipe()[0])

def test_without():
    import sys
    assert "pyvider_rpcplugin.client._client" in sys.modules  # of those before
"""


def run(folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "-q", *options],
        cwd=folder, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_fixtures_work_on_the_tests_loop(tmp_path: Path):
    (tmp_path / "conftest.py").write_text(
        'pytest_plugins = ["pyvider_rpcplugin.testing.pytest_plugin"]\n'
    )
    (tmp_path / "test_greeter.py").write_text(textwrap.dedent(TESTS))
    shown = run(tmp_path, "-W", "error")
    assert "left behind: descriptor" in shown
    assert "7 passed" in shown, shown
    assert "1 error" in shown


def test_who_names_the_plugin_and_uses_no_fixture_loads_nothing_of_it(tmp_path: Path):
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n"
        "def test_nothing():\n"
        "    own = {name for name in sys.modules if name.startswith('pyvider_rpcplugin')}\n"
        "    assert own <= {'pyvider_rpcplugin', 'pyvider_rpcplugin.testing',\n"
        "        'pyvider_rpcplugin._collector', 'pyvider_rpcplugin._lazy',\n"
        "        'pyvider_rpcplugin._version', 'pyvider_rpcplugin.testing.pytest_plugin'}, own\n"
    )
    assert "1 passed" in run(tmp_path, "-p", "pyvider_rpcplugin.testing.pytest_plugin")
