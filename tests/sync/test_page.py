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


def run(name: str, example: str) -> list[str]:
    [program] = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT / "examples" / example,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_host():
    assert run("host", "quickstart") == ["Hello, Ada!", "3", "2", "1"]


def test_the_stubs():
    assert run("stubs", "protobuf") == ["Hello, Ada!", "1000", "2", "1", "too late"]
