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

    To build what it needs takes minutes: where Go is required that is done here, and otherwise the
    tests are skipped until it has been done.
    """
    name: str = request.module.EXAMPLE
    if os.environ.get("INTEROP_GO") == "required":
        with_go.prepare(name)
    elif not with_go.is_prepared(name):
        try:
            with_go.go()
        except with_go.Impossible as exc:
            pytest.skip(str(exc))
        pytest.skip("not built yet: `python examples/with_go.py --prepare` takes some minutes")
    return functools.partial(_run, name)


def _run(name: str, loop: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "examples/with_go.py", name, loop],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
