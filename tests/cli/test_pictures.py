"""The pictures of the documentation can be made again, and show what the commands print."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .program import ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow]

PICTURES = ROOT / "docs" / "pictures"
SHOWN = {
    "inspect": (
        "inspect python",
        "SERVING",
        "mutual TLS",
        "Greeter",
        "countdown",
        "stream of integer",
    ),
    "doctor": ("doctor python", "import-error", "numpy_financial", "What to do: install"),
    "top": ("calls/s", "2 of it", "translator_plugin", "restarts", "MB"),
}


def text_of(file: Path) -> str:
    return html.unescape(file.read_text()).replace("\xa0", " ")


def test_the_pictures_can_be_made_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PICTURES / "make.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, words in SHOWN.items():
        for folder in (PICTURES, tmp_path):
            shown = text_of(folder / f"{name}.svg")
            missing = [word for word in words if word not in shown]
            assert not missing, (folder, name, shown)
