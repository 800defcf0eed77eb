"""A child process on Windows. Experimental: written for it, never run there by us.

There is neither a way to wait for a pipe nor for a process without a thread, and no process group
that one could end: a plugin's own children are left to it.
"""

from __future__ import annotations

import subprocess
from typing import IO, TYPE_CHECKING, Literal

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PipeReader:
    """The reading end of a pipe; a thread waits for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._limiter = anyio.CapacityLimiter(1)

    async def read(self, max_bytes: int) -> bytes:
        """Wait for bytes; b"" at the end."""
        if self._file.closed:
            return b""
        return await anyio.to_thread.run_sync(
            self._file.read, max_bytes, abandon_on_cancel=True, limiter=self._limiter
        )

    def read_nowait(self, max_bytes: int) -> bytes | None:
        """Only a thread can read: nothing can be had at once."""
        return b"" if self._file.closed else None

    def finish(self) -> None:
        """Nothing to do: the pipe ends with its last writer."""

    def close(self) -> None:
        self._file.close()


class Child:
    """A started child process."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        stdin: Literal["null", "inherit"],
        executable: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._popen = subprocess.Popen(  # noqa: S603, TID251 - this is where processes are started
            command,
            bufsize=0,
            stdin=subprocess.DEVNULL if stdin == "null" else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
        )
        self.pid = self._popen.pid
        assert self._popen.stdout is not None  # noqa: S101 - for the type checker
        assert self._popen.stderr is not None  # noqa: S101 - for the type checker
        self.stdout = PipeReader(self._popen.stdout)
        self.stderr = PipeReader(self._popen.stderr)
        self._limiter = anyio.CapacityLimiter(1)

    async def wait_ended(self) -> None:
        """Wait until the child has ended."""
        await anyio.to_thread.run_sync(
            self._popen.wait, abandon_on_cancel=True, limiter=self._limiter
        )

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def terminate(self) -> None:
        """There is no asking on Windows: end it."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it."""
        self._popen.kill()

    def reap(self) -> int | None:
        """Take the exit status of a child that has ended."""
        return self._popen.poll()

    def kill_and_wait(self, seconds: float) -> bool:
        """End it without an event loop's help. The last resort: it blocks."""
        self._popen.kill()
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()
