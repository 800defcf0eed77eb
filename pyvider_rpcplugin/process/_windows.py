"""A child process on Windows. Experimental: written for it, never run there by us.

There is neither a way to wait for a pipe nor for a process without a thread, and no process group
that one could end: a plugin's own children are left to it.
"""

from __future__ import annotations

import subprocess
from typing import IO, TYPE_CHECKING, Literal

import anyio
import anyio.to_thread

from pyvider_rpcplugin.process._spec import SameAddresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PipeReader:
    """The reading end of a pipe; a thread waits for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._limiter = anyio.CapacityLimiter(1)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes.

        Raises:
            anyio.EndOfStream: There are no more.
        """
        data = b""
        if not self._file.closed:
            data = await anyio.to_thread.run_sync(
                self._file.read, max_bytes, abandon_on_cancel=True, limiter=self._limiter
            )
        if not data:
            raise anyio.EndOfStream
        return data

    def read_nowait(self, max_bytes: int) -> bytes | None:
        """Only a thread can read: nothing can be had at once."""
        return b"" if self._file.closed else None

    def finish(self) -> None:
        """Nothing to do: the pipe ends with its last writer."""

    def close(self) -> None:
        self._file.close()


class Child(SameAddresses):
    """A started child process."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        stdin: Literal["null", "inherit"],
        executable: str | None = None,
        pass_fds: Sequence[int] = (),
        *,
        own_session: bool = False,
    ) -> None:
        self.leads_group: bool = False
        self.name: str = command[0]
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

    @property
    def id(self) -> str:
        return str(self.pid)

    async def wait(self) -> int | None:
        """Wait until it has ended, and take its exit status."""
        await self.wait_ended()
        return self.reap()

    async def wait_ended(self) -> None:
        """Wait until the child has ended."""
        await anyio.to_thread.run_sync(
            self._popen.wait, abandon_on_cancel=True, limiter=self._limiter
        )

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    async def terminate(self) -> None:
        """There is no asking on Windows: end it."""
        self._popen.terminate()

    async def kill(self) -> None:
        """End it."""
        self._popen.kill()

    async def diagnose(self) -> str:
        """Nothing is known that the exit status and the last lines do not tell."""
        return ""

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

    def release(self) -> None:
        """Let it live on."""
        self._popen.returncode = 0  # or else its destructor would complain

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()


async def settled() -> None:
    """Nothing watches over a process here."""


def reap_released() -> None:
    """Nothing is left to take of a process that has ended."""
