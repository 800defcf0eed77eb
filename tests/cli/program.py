"""The command line, as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# They are installed with the extra `cli`, and with `test`.
pytest.importorskip("typer")

ROOT = Path(__file__).parents[2]
GREETER = [sys.executable, str(ROOT / "examples" / "quickstart" / "greeter_plugin.py")]
PROTOBUF = [sys.executable, str(ROOT / "examples" / "protobuf" / "greeter_plugin.py")]


def cli(*arguments: str, stdin: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it, and return what it printed and its status."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pyvider_rpcplugin", *arguments],
        cwd=options.pop("cwd", ROOT),
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,
    )


def printed(*arguments: str, status: int = 0, **options: Any) -> str:
    """Run it, check its status, and return what it printed."""
    done = cli(*arguments, **options)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def as_json(*arguments: str, status: int = 0, **options: Any) -> Any:
    """The same, read as JSON."""
    return json.loads(printed(*arguments, status=status, **options))
