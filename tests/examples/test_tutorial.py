"""The tutorial, followed: its files are saved, its commands run, and what they print compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT, shown

PAGE = DOCS / "tutorial.md"
FOLDER = ROOT / "examples" / "tutorial"
STEPS = [
    "words_plugin.py (first)", "host.py (first)",
    "words_plugin.py (second)", "host.py (second)",
    "words_plugin.py", "host.py", "test_words.py", "crash.py",
]  # fmt: skip

pytestmark = [pytest.mark.process, pytest.mark.slow]

_STEP = re.compile(
    r"<!-- (?P<name>[^>\n]+) -->\n```python\n(?P<code>.*?)```"
    r"|```console\n\$ (?P<command>[^\n]*)\n(?P<output>.*?)```",
    re.DOTALL,
)


def steps() -> Iterator[re.Match[str]]:
    return _STEP.finditer(PAGE.read_text())


def said_by(line: str, folder: Path) -> str:
    """What a command of the page prints, on either of its outputs."""
    programs = {
        "python": [sys.executable],
        "pyvider-rpcplugin": [sys.executable, "-m", "pyvider_rpcplugin"],
    }
    first, *words = shlex.split(line)
    words = [sys.executable if word == "python" else word for word in words]
    done = subprocess.run(
        [*programs[first], *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "",
             "PYTEST_PLUGINS": "anyio"},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return (done.stdout or done.stderr).replace(sys.executable, "python")


def without_what_varies(text: str) -> list[str]:
    for varies in (r"/tmp/\S+", r"SHA-256 [0-9a-f]+", r"\d{4}-\d\d-\d\d", r"[\d.]+ (ms|MB)", r"\d+\.\d+s",
                   r"process +\d+"):  # fmt: skip
        text = re.sub(varies, "-", text)
    return [line.rstrip() for line in text.rstrip().splitlines()]


@pytest.mark.thorough
@pytest.mark.timeout(120, func_only=True)
def test_whoever_follows_the_page_sees_what_it_shows(tmp_path: Path) -> None:
    pytest.importorskip("typer")
    commands = []
    for step in steps():
        if step["name"]:
            (tmp_path / step["name"].partition(" ")[0]).write_text(step["code"])
        else:
            commands.append(step["command"])
            said = said_by(step["command"], tmp_path)
            assert without_what_varies(said) == without_what_varies(step["output"])
    assert len(commands) == PAGE.read_text().count("\n$ ")


def test_every_program_on_the_page_is_a_step() -> None:
    assert [step["name"] for step in steps() if step["name"]] == STEPS


@pytest.mark.parametrize("name", [name for name in STEPS if " " not in name])
def test_what_the_page_ends_with_is_the_example(name: str) -> None:
    assert shown("tutorial.md", name) == (FOLDER / name).read_text()


def test_the_example_runs() -> None:
    expected = [step["output"] for step in steps() if step["command"] == "python host.py"][-1]
    assert said_by("python host.py", FOLDER) == expected
