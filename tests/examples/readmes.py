"""What the READMEs of the examples say: which commands to give, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"

# On a machine that is busy with other things, a plugin may be slow to end, and its host says so.
_BUSY = re.compile(r"^.*process\.shutdown\.slow.*\n", re.MULTILINE)
# The commands, and then what they print; `...` stands for what is different each time.
_RUN = re.compile(r"```sh\n(?P<commands>.*?)```\n\n```text\n(?P<printed>.*?)```", re.DOTALL)


def said_to_print() -> list[str]:
    """The examples whose README says what they print."""
    return sorted(
        folder.parent.name
        for folder in EXAMPLES.glob("*/README.md")
        if _RUN.search(folder.read_text())
    )


def printed(name: str) -> str:
    """What the README of an example says that it prints."""
    return _parts(name)["printed"]


def run(name: str, folder: Path, env: dict[str, str] | None = None) -> str:
    """Give the commands of an example's README, in a folder of their own; return what they print."""
    (folder / "examples").symlink_to(EXAMPLES)
    return "".join(
        _BUSY.sub("", run_command(*shlex.split(command), cwd=folder, env=env).stdout)
        for command in _parts(name)["commands"].splitlines()
    )


def run_command(
    program: str,
    *arguments: str,
    cwd: Path,
    status: int = 0,
    quiet: bool = True,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command that has to end with this status, and has nothing to complain of if that is 0.

    Unless it is none that is `quiet`, and logs what it does.
    """
    python = {"python": [], "pyvider-rpcplugin": ["-m", "pyvider_rpcplugin"]}
    words = [sys.executable, "-W", "error", *python[program]] if program in python else [program]
    done = subprocess.run(
        [*words, *arguments],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert status or not quiet or not _BUSY.sub("", done.stderr), done.stderr
    return done


def _parts(name: str) -> dict[str, str]:
    found = _RUN.search((EXAMPLES / name / "README.md").read_text())
    assert found is not None
    return found.groupdict()
