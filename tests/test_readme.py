"""What the README says is what is there. That its example runs is tested with the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import shown

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["greeter_plugin.py", "host.py"])
def test_the_readme_shows_the_example_as_it_is(name):
    assert shown("README.md", name) == (QUICKSTART / name).read_text()


def test_the_readme_opens_with_two_commands_of_one_line():
    example, tests = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for command in (example, tests):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")
    assert example.endswith("&& .venv/bin/python examples/quickstart/host.py\n")


def test_the_ci_script_runs_the_readme_command_for_the_tests():
    _, tests = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert tests in (ROOT / ".ci" / "run").read_text()


def test_no_page_says_to_install_the_package_by_name():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        assert not re.search(r"(install|add)\s+[\"']?pyvider[-_.]rpcplugin", page.read_text()), page
