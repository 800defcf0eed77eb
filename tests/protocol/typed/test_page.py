"""The programs in docs/typed.md run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "typed.md").read_text()
PROGRAMS = dict(re.findall(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.DOTALL))

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("host", "printed"),
    [("shop_host.py", ["only 3: 30"]), ("backup_host.py", ["1: a", "2: b", "24"])],
)
def test_the_programs_say_what_happened(host: str, printed: list[str], tmp_path: Path) -> None:
    for name, code in PROGRAMS.items():
        (tmp_path / name).write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", host],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed
