"""The interpreters that the peers run on, and the folder that they run in."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    # The environment that the benchmark itself runs in, with the installed wheel.
    "main": (),
    # It wants h2 and hpack older than 4.
    "purerpc": ("purerpc==0.8.0", "trio", "protobuf"),
    "calls": ("Pyro5", "execnet", "anyio"),
    # The public package that has the same name as this project.
    "pyvider": ("pyvider-rpcplugin==0.5.5", "grpcio", "protobuf"),
    "pyplugin": ("python-plugin==0.1.0",),
}

REPOSITORY = Path(__file__).parents[2]


class Environments:
    """Makes the environments in a folder, each when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.failures: dict[str, str] = {}

    def python(self, name: str) -> str | None:
        """Return the path of an environment's interpreter; None if it cannot be made."""
        if name == "main":
            return sys.executable
        if name in self.failures:
            return None
        python = self._folder / name / "bin" / "python"
        # Written last, so that an installation that was cut short is not taken for a whole one.
        done = self._folder / name / "requirements.txt"
        wanted = "\n".join(REQUIREMENTS[name])
        if not done.exists() or done.read_text() != wanted:
            print(f"making the environment {name}: {', '.join(REQUIREMENTS[name])}", flush=True)
            make = [sys.executable, "-m", "venv", "--clear", str(self._folder / name)]
            install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]]
            for command in (make, install):
                result = subprocess.run(
                    command, capture_output=True, text=True, env=child_variables(), check=False
                )
                if result.returncode:
                    said = (result.stderr or result.stdout).strip().splitlines()
                    self.failures[name] = said[-1] if said else f"status {result.returncode}"
                    return None
            done.write_text(wanted)
        return str(python)


def child_variables(**more: str) -> dict[str, str]:
    """Return the environment of a measured process."""
    variables = {
        name: value
        for name, value in os.environ.items()
        # The first two distort start-up times, the others would change which code is run.
        if name not in {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME"}
        and not name.startswith(("PLUGIN_", "PYTHONDEV", "PYTHONASYNCIO"))
    }
    return variables | more


@contextmanager
def stage() -> Iterator[Path]:
    """Make a folder in which ``tests.bench`` can be imported, and nothing else of the repository.

    So the peers that are ours run the installed wheel and not the source tree.
    """
    # A Unix socket's path may have 107 bytes at most, and TMPDIR may be long.
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        folder = Path(name)
        # What a server that is ended leaves behind goes with this folder.
        (folder / "tmp").mkdir()
        package = folder / "tests"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "bench").symlink_to(REPOSITORY / "tests" / "bench", target_is_directory=True)
        yield folder
