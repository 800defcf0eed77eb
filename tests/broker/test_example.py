"""The page on the broker shows an example that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import shown

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "broker"


@pytest.mark.parametrize("name", ["survey_plugin.py", "host.py"])
def test_the_page_shows_the_example_as_it_is(name: str) -> None:
    assert shown("broker.md", name) == (EXAMPLE / name).read_text()


@pytest.mark.process
def test_the_example_works_on_both_loops() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "host.py")],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = [
        "the plugin looks at the hall",
        "the plugin looks at the attic",
        "it saw 2 of 3",
        "Grace thinks about 'compilers'",
    ]
    assert done.stdout.splitlines() == ["on asyncio:", *said, "on trio:", *said]
