"""The programs in Go: built once, and run."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent
# Where Go has no folder for what it built, as in a test's bare environment, it says so and stops.
BUILD_TIMEOUT = 300


class NoGo(Exception):
    """The programs cannot be built here; the text says why."""


def build() -> Path:
    """Build the programs of this folder."""
    return build_in(FOLDER, "./host", "./mux", "./plugin", "./terraform", "./typed")


@functools.cache
def build_in(module: Path, *packages: str) -> Path:
    """Build programs of a module into the user's cache, and return the folder.

    Go itself remembers what it has compiled, so this takes a moment when nothing has changed.
    """
    go = shutil.which("go")
    if go is None:
        msg = "Go is not here: `go` is not on the PATH"
        raise NoGo(msg)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # Another clone may have other sources.
    clone = hashlib.sha256(os.fsencode(module)).hexdigest()[:8]
    out = cache / "pyvider-rpcplugin" / f"interop-go-{clone}"
    out.mkdir(parents=True, exist_ok=True)
    built = subprocess.run(
        [go, "build", "-buildvcs=false", "-o", f"{out}{os.sep}", *packages],
        cwd=module, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False,
    )  # fmt: skip
    if built.returncode:
        msg = f"`go build` failed: {built.stderr.strip()[-2000:]}"
        raise NoGo(msg)
    return out


def or_skip(build: Callable[[], Path]) -> Path:
    """Build programs. Without Go the test is skipped, unless Go is required."""
    try:
        return build()
    except NoGo as exc:
        if os.environ.get("INTEROP_GO") == "required":
            raise
        pytest.skip(str(exc))


def python_plugin(loop: str, *options: str) -> list[str]:
    """The command of the plugin in Python."""
    return [sys.executable, str(FOLDER / "python_plugin.py"), "--loop", loop, *options]


def conformance_plugin(loop: str) -> list[str]:
    """The command of the plugin in Python that serves what go-plugin's own tests call."""
    return [sys.executable, str(FOLDER / "conformance_plugin.py"), loop]


# A plain connection is said to be one. And over one shared connection, a host in Go goes on writing
# while the plugin that it has told to end is ending: that, and no other trouble of yamux.
_TO_BE_EXPECTED = re.compile(
    r"connections are plain.*|yamux: Failed to write header: write .*: broken pipe"
)


@dataclass(frozen=True)
class Report:
    """What the host in Go said."""

    error: str
    version: int
    results: dict[str, Any]
    errors: dict[str, dict[str, str]]
    exit: str
    kill_seconds: float
    log: list[dict[str, Any]]
    stdout: str
    stderr: str

    @property
    def was_forced(self) -> bool:
        """Whether the plugin had to be killed: it was not gone two seconds after Shutdown."""
        return any("failed to exit gracefully" in line["@message"] for line in self.log)

    @property
    def complaints(self) -> list[str]:
        """What the host logged as a warning or an error, but for what is to be expected."""
        return [
            line["@message"]
            for line in self.log
            if line["@level"] in {"warn", "error"}
            and not _TO_BE_EXPECTED.fullmatch(line["@message"])
        ]

    @property
    def ended_well(self) -> bool:
        """Whether the plugin ended by itself when it was asked to, with nothing to complain of."""
        return (self.exit, self.was_forced, self.complaints) == ("exit status 0", False, [])


def _flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def run_host(folder: Path, command: list[str], *todo: str, **options: object) -> Report:
    """Have the host in Go start a plugin, do things with it, and end it."""
    flags = [f"-{name}={_flag(value)}" for name, value in options.items()]
    ran = subprocess.run(
        [str(folder / "host"), *flags, f"-do={','.join(todo) or 'ping'}", "--", *command],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    return Report(**{"error": "", **said})
