"""What the page on the command line shows runs, and its names are what there is."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.pages import DOCS

from .program import ROOT, printed

pytestmark = [pytest.mark.process, pytest.mark.slow]

PAGE = (DOCS / "cli.md").read_text()


def commands() -> list[str]:
    [block] = re.findall(r"<!-- commands -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    return block.splitlines()


def test_the_commands_run_one_after_the_other(tmp_path: Path):
    shutil.copy(ROOT / "examples" / "quickstart" / "greeter_plugin.py", tmp_path)
    for line in commands():
        program, *words = shlex.split(line)
        assert program == "pyvider-rpcplugin"
        words = [sys.executable if word == "python" else word for word in words]
        assert printed(*words, cwd=tmp_path)


def test_each_command_has_a_section_and_each_section_a_command():
    sections = re.findall(r"^## `(\w+)`", PAGE, re.MULTILINE)
    shown = printed("--help")
    listed = re.findall(
        r"^[ │]*(inspect|call|run|doctor|check|certs|gen|[a-z]+) {2,}\S", shown, re.MULTILINE
    )
    assert set(sections) == {name for name in listed if not name.startswith("-")}


def test_the_options_are_those_of_inspect():
    options = set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))
    assert options | {"--json", "--help"} == set(
        re.findall(r"(--[a-z-]+)", printed("inspect", "--help"))
    )
