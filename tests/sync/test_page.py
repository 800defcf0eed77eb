"""The programs in docs/blocking.md run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "blocking.md").read_text()


def shown(name: str) -> str:
    [program] = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    return program


def run(program: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_host():
    assert run(shown("host"), ROOT / "examples" / "quickstart") == ["Hello, Ada!", "3", "2", "1"]


def test_the_host_with_the_plugin_of_plain_functions(tmp_path):
    (tmp_path / "greeter_plugin.py").write_text(shown("plugin"))
    assert run(shown("host"), tmp_path) == ["Hello, Ada!", "3", "2", "1"]


def test_the_stubs():
    folder = ROOT / "examples" / "protobuf"
    assert run(shown("stubs"), folder) == ["Hello, Ada!", "1000", "2", "1", "too late"]
