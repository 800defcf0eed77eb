"""Image filters: distributions that offer plugins by entry points, found by a host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.discovery.packages import installed, library

from .readmes import EXAMPLES, run_command

HERE = EXAMPLES / "image_filters"
README = (HERE / "README.md").read_text()

pytestmark = [
    pytest.mark.process, pytest.mark.slow, pytest.mark.thorough, pytest.mark.timeout(120, func_only=True)
]  # fmt: skip


def install(*filters: str, into: Path) -> None:
    """Install filters as people do, but that what they are built with is here already."""
    options = [
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "-q",
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(into)]
        + [str(HERE / name) for name in filters],
        check=True,
    )


def printed() -> str:
    [text] = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    return str(text)


def test_filters_that_are_installed_beside_the_host_are_found_and_called(tmp_path: Path) -> None:
    install("blur", "poster", into=tmp_path / "site")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(EXAMPLES.parent)])}
    done = run_command("python", str(HERE / "host.py"), cwd=tmp_path, env=env)
    assert done.stdout == printed()
    for name in ("picture", "blur", "poster"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_filters_of_another_environment_are_found_and_run_there(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    [packages] = tmp_path.glob("venv/lib/python*/site-packages")
    install("blur", into=packages)
    installed(packages, library(tmp_path))
    install("poster", into=tmp_path / "site")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(EXAMPLES.parent)])}
    host = ("python", str(HERE / "host.py"), str(tmp_path / "venv"))
    assert run_command(*host, cwd=tmp_path, env=env).stdout == printed()
    assert "blur.png" not in run_command(*host[:2], cwd=tmp_path, env=env).stdout
