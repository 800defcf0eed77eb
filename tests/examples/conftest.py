"""The examples whose other side is a program in Go."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import with_go

ROOT = Path(__file__).parents[2]

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run_on(request: pytest.FixtureRequest) -> Run:
    """Runs the example that the module of the tests names, on a loop.

    What it needs is built here, which may take longer than a test. Where that cannot be, the tests
    are skipped, unless Go is required.
    """
    name: str = request.module.EXAMPLE
    try:
        with_go.prepare(name)
    except with_go.Impossible as exc:
        if os.environ.get("INTEROP_GO") == "required":
            raise
        pytest.skip(str(exc))
    return functools.partial(_run, name)


def _run(name: str, loop: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "examples/with_go.py", name, loop],
        cwd=ROOT, capture_output=True, text=True, timeout=25, check=False,
    )  # fmt: skip
