"""Without Go, the examples that need it say so, and their tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples import with_go

from .conftest import ROOT

# What asks for a program in Go, in each way that there is.
ASKING = [
    "tests/examples/test_terraform_provider_random.py::test_the_provider_names_a_pet",
    "tests/examples/test_tflint_ruleset.py::test_tflint_tells_what_the_rule_found",
    "tests/interop/go/test_terraform_provider.py",
    "tests/interop/go/test_yamux.py",
]
PYTEST = ["-m", "pytest", "-q", "-m", "thorough or not thorough", "-p", "no:cacheprovider"]

pytestmark = pytest.mark.process


def without_go(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with nothing on the PATH, and with nothing built before."""
    environment = {name: value for name, value in os.environ.items() if name != "INTEROP_GO"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
        env={**environment, "PATH": str(folder), "XDG_CACHE_HOME": str(folder), **more},
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(with_go.EXAMPLES))
def test_an_example_says_that_it_needs_go(tmp_path: Path, name: str) -> None:
    done = without_go(tmp_path, "examples/with_go.py", name)
    assert done.returncode == 1
    assert "Go is not here" in done.stderr


@pytest.mark.parametrize("asking", ASKING)
def test_the_tests_that_need_go_are_skipped_without_it(tmp_path: Path, asking: str) -> None:
    done = without_go(tmp_path, *PYTEST, f"--basetemp={tmp_path / 'base'}", asking)
    assert done.returncode == 0, done.stdout
    assert "Go is not here: `go` is not on the PATH" in done.stdout
    assert "passed" not in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize("asking", ASKING)
def test_they_fail_where_go_is_required(tmp_path: Path, asking: str) -> None:
    done = without_go(
        tmp_path, *PYTEST, f"--basetemp={tmp_path / 'base'}", asking, INTEROP_GO="required"
    )
    assert done.returncode == 1, done.stdout
    assert "Go is not here: `go` is not on the PATH" in done.stdout
    assert "passed" not in done.stdout
