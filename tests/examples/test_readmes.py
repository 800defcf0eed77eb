"""Each example does what its README says, on both loops."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest

from . import readmes

pytestmark = pytest.mark.process

FOLDERS = sorted(path.name for path in readmes.EXAMPLES.glob("[a-z]*/"))
ON_TRIO = {"PYTHONPATH": str(Path(__file__).with_name("on_trio"))}
# These keep the cores busy on purpose, or need several programs.
TAKE_LONG = {"own_ca", "pool"}
EXAMPLES = [
    pytest.param(name, marks=pytest.mark.thorough if name in TAKE_LONG else ())
    for name in readmes.said_to_print()
]


def check(name: str, got: str) -> None:
    want = readmes.printed(name)
    checker = doctest.OutputChecker()
    assert checker.check_output(want, got, doctest.ELLIPSIS), f"{want}\n--- is not\n{got}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_its_readme_says(tmp_path: Path, name: str) -> None:
    check(name, readmes.run(name, tmp_path))


@pytest.mark.thorough
@pytest.mark.parametrize("name", readmes.said_to_print())
def test_it_does_so_too_when_its_plugin_runs_on_trio(tmp_path: Path, name: str) -> None:
    check(name, readmes.run(name, tmp_path, env=ON_TRIO))


@pytest.mark.thorough
def test_plugins_are_on_trio_in_that_test(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import sniffio\n"
        "from pyvider_rpcplugin import plugin_server\n"
        "class Loop:\n"
        "    async def name(self) -> str:\n"
        "        return sniffio.current_async_library()\n"
        "plugin_server(handler=Loop()).run()\n"
    )
    host = (
        "from pyvider_rpcplugin.sync import plugin_client_sync\n"
        "class Loop:\n"
        "    async def name(self) -> str: ...\n"
        f"with plugin_client_sync([{sys.executable!r}, {str(plugin)!r}]) as client:\n"
        "    print(client.proxy(Loop).name())\n"
    )
    ran = readmes.run_command("python", "-c", host, cwd=tmp_path, env=ON_TRIO)
    assert ran.stdout == "trio\n"


@pytest.mark.parametrize("name", FOLDERS)
def test_each_example_has_a_readme_that_says_how_to_run_it(name: str) -> None:
    readme = readmes.EXAMPLES / name / "README.md"
    assert "```sh" in readme.read_text()
