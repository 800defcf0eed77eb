"""To a type checker, a call of a proxy is a call of the method that it stands for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("typing_program.py")
ROOT = Path(__file__).parents[3]
LINES = PROGRAM.read_text().splitlines()
WRONG = {number for number, line in enumerate(LINES, 1) if line.endswith("# wrong")}

MYPY = ["mypy", "--strict", "--no-incremental", "--config-file="]
PYRIGHT = ["pyright", "--pythonpath", sys.executable]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", [MYPY, PYRIGHT], ids=lambda words: words[0])
def test_what_is_wrong_is_found_and_nothing_else(checker: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"# pyright: strict\n{PROGRAM.read_text()}")
    (tmp_path / "tmp").mkdir()
    variables = {"TMPDIR": str(tmp_path / "tmp"), "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *checker, "program.py"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    found = {int(number) - 1 for number in re.findall(r"program\.py:(\d+):.*error", done.stdout)}
    assert found == WRONG, done.stdout + done.stderr
    assert done.returncode == 1
