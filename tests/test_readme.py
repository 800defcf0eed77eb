"""What the README says is what is there, and its example runs."""

from __future__ import annotations

import re
import subprocess
import sys
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


@pytest.mark.process
def test_the_quickstart_says_what_happened_on_both_loops():
    shown = run_example("quickstart", str(QUICKSTART / "host.py"))
    calls = ["Hello, Ada!", "3", "2", "1"]
    assert shown.splitlines() == ["on asyncio:", *calls, "on trio:", *calls]


@pytest.mark.process
def test_the_same_with_protocol_buffers_does_too():
    shown = run_example("protobuf", str(ROOT / "examples" / "protobuf" / "host.py"))
    calls = ["Hello, Ada!", "3", "2", "1"]
    assert shown.splitlines() == ["on asyncio:", *calls, "on trio:", *calls]


def run_example(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT / "examples" / name,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
