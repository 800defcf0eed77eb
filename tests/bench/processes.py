"""A child process of the benchmark, as its parent sees it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class ChildError(Exception):
    """A child ended, hung, or reported an error."""


class Child:
    """A process that is told what to do on stdin and reports on stdout, one JSON value a line."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- close() closes it
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._output = self._process.stdout
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, line: str, timeout: float) -> dict[str, Any]:
        """Send a line, and return the report that follows."""
        try:
            self._stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None
        return self.report(timeout)

    def report(self, timeout: float) -> dict[str, Any]:
        """Return the next report."""
        give_up = time.monotonic() + timeout
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._output], [], [], give_up - time.monotonic())
            if not readable:
                raise ChildError(f"no report within {timeout:.0f} s")
            data = os.read(self._output.fileno(), 65536)
            if not data:
                raise ChildError(self._last_words())
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        if "error" in value:
            raise ChildError(value["error"])
        return value

    def close(self) -> None:
        """End the process, politely at first, and what it started."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=3)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        self._stderr.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"ended with status {status}: {lines[-1] if lines else 'no word'}"


def progress(text: str) -> None:
    """Say what is being done, to a person who watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
