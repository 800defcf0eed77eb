"""The programs in docs/typed.md run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import DOCS, shown

PAGE = "typed.md"
[PROTO] = re.findall(r"```proto\n(.*?)```", (DOCS / PAGE).read_text(), re.DOTALL)

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("plugin", "host", "printed"),
    [
        ("shop_plugin.py", "shop_host.py", ["only 3: 30"]),
        ("backup_plugin.py", "backup_host.py", ["1: a", "2: b", "24"]),
        ("shop_plugin.py", "write_proto.py", [*PROTO.splitlines(), ""]),
    ],
)
def test_the_programs_say_what_happened(
    plugin: str, host: str, printed: list[str], tmp_path: Path
) -> None:
    for name in (plugin, host):
        (tmp_path / name).write_text(shown(PAGE, name))
    done = subprocess.run(
        [sys.executable, "-W", "error", host],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed
