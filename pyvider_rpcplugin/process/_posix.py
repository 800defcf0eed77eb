"""A child process on POSIX: how it is started, watched, signalled and read.

On Linux a pidfd tells when the child has ended, so neither event loop needs a thread for it.
Elsewhere (and under a kernel or a sandbox without pidfds) a thread waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import nullcontext, suppress
from typing import IO, TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
from anyio import lowlevel

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._forks import keep_from_children
from pyvider_rpcplugin.process._guardian import guardian
from pyvider_rpcplugin.process._pidfd import open_pidfd
from pyvider_rpcplugin.process._spec import SameAddresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = event_logger(__name__)

# What is still taken from a pipe after the child's end. The child's own words fit into the pipe;
# only a process that got away from its group could write more.
_LEFTOVER_BYTES = 1 << 20


class PipeReader:
    """The reading end of a pipe, without threads and without the loop's own streams."""

    def __init__(self, file: IO[bytes]) -> None:
        os.set_blocking(file.fileno(), False)
        self._file = file
        self._leftover: int | None = None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes.

        Raises:
            anyio.EndOfStream: There are no more.
        """
        await lowlevel.checkpoint()
        while True:
            data = self.read_nowait(max_bytes)
            if data:
                return data
            if data is not None:
                raise anyio.EndOfStream
            try:
                await anyio.wait_readable(self._file)
            except anyio.ClosedResourceError:
                continue  # finish() or close() woke us: take what is left

    def read_nowait(self, max_bytes: int) -> bytes | None:
        """Take what is in the pipe; b"" at the end, None if there is nothing yet."""
        if self._file.closed or self._leftover == 0:
            return b""
        if self._leftover is not None:
            max_bytes = min(max_bytes, self._leftover)
        # Unlike what its type says, an unbuffered file gives None where it would have to wait.
        data: bytes | None = self._file.read(max_bytes)
        if self._leftover is not None:
            data = data or b""
            self._leftover = self._leftover - len(data) if data else 0
        return data

    def finish(self) -> None:
        """Say that the writer has ended: what is in the pipe now is all, whoever holds it open."""
        if self._leftover is None:
            self._leftover = _LEFTOVER_BYTES
            if not self._file.closed:
                anyio.notify_closing(self._file)

    def close(self) -> None:
        if not self._file.closed:
            anyio.notify_closing(self._file)
            self._file.close()

    def abandon(self) -> None:
        """Close it without a word to the loop: in a forked process, that is shared with the parent."""
        self._file.close()


class Child(SameAddresses):
    """A started child process: what the runner for processes of this machine gives.

    It leads a process group of its own, so that signals reach what it started itself, too; with
    an inherited stdin it stays in ours (a background group may not read the terminal), and
    signals go to it alone.
    """

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
        self.leads_group: bool = stdin == "null" or own_session
        self.name: str = command[0]
        ours, its_stdout = os.pipe()
        stdout = open(ours, "rb", buffering=0)  # noqa: SIM115 - it is this object's
        try:
            with nullcontext() if own_session else guardian.expecting(its_stdout):
                self._popen = subprocess.Popen(  # noqa: S603 - no shell; the command is the caller's
                    command,
                    bufsize=0,
                    stdin=subprocess.DEVNULL if stdin == "null" else None,
                    stdout=its_stdout,
                    stderr=subprocess.PIPE,
                    cwd=cwd,
                    env=env,
                    executable=executable,
                    pass_fds=pass_fds,
                    process_group=0 if self.leads_group and not own_session else None,
                    start_new_session=own_session,
                )
                self.pid: int = self._popen.pid
                if not own_session:
                    guardian.add(self.pid, group=self.leads_group)
        except BaseException:
            stdout.close()
            raise
        finally:
            os.close(its_stdout)
        assert self._popen.stderr is not None  # noqa: S101 - for the type checker
        self.stdout: PipeReader = PipeReader(stdout)
        self.stderr: PipeReader = PipeReader(self._popen.stderr)
        self._pidfd = open_pidfd(self.pid)
        keep_from_children(self)

    @property
    def id(self) -> str:
        return str(self.pid)

    async def wait(self) -> int | None:
        """Wait until it has ended, and take its exit status."""
        await self.wait_ended()
        return self.reap()

    async def wait_ended(self) -> None:
        """Wait until the child has ended; it stays a zombie until `reap`."""
        while not self.has_ended():
            if self._pidfd is not None:
                await anyio.wait_readable(self._pidfd)
            else:
                # Of its own, since the common limit could keep the 41st child unwatched.
                limiter = anyio.CapacityLimiter(1)
                await anyio.to_thread.run_sync(
                    self._wait_in_thread, abandon_on_cancel=True, limiter=limiter
                )

    def has_ended(self) -> bool:
        if self._popen.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._popen.poll() is not None
        try:
            flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
            return os.waitid(os.P_PID, self.pid, flags) is not None
        except ChildProcessError:
            return True  # somebody else reaped it

    def _wait_in_thread(self) -> None:
        if not hasattr(os, "waitid"):
            self._popen.wait()
            return
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    async def terminate(self) -> None:
        """Ask the whole group to end."""
        self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        """End the whole group."""
        self._signal(signal.SIGKILL)

    async def diagnose(self) -> str:
        """Nothing is known that the exit status and the last lines do not tell."""
        return ""

    def _signal(self, number: signal.Signals) -> None:
        # Until the child is reaped, its number belongs to nobody else, and so does the group's.
        if self._popen.returncode is not None:
            return
        try:
            if self.leads_group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # it runs as another user now
            logger.warning("process.signal.refused pid=%d signal=%s", self.pid, number.name)

    def reap(self) -> int | None:
        """End what is left of the group of a child that has ended, and take its exit status.

        Returns:
            The status; None if somebody else has taken it.
        """
        if self.leads_group:
            self._signal(signal.SIGKILL)
        guardian.drop(self.pid, group=self.leads_group)
        if self._popen.returncode is not None:
            return self._popen.returncode
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self._popen.returncode = 0  # or else its destructor would wait for it
            return None
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        return self._popen.returncode

    def kill_and_wait(self, seconds: float) -> bool:
        """End the group and reap, without an event loop's help. The last resort: it blocks."""
        self._signal(signal.SIGKILL)
        guardian.drop(self.pid, group=self.leads_group)
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        guardian.settle()
        return True

    def release(self) -> None:
        """Let it live on. It stays a child of this process, and is reaped at some later start."""
        guardian.drop(self.pid, group=self.leads_group)
        if self._popen.returncode is None:
            _released.append((self.pid, start_time(self.pid)))
            self._popen.returncode = 0  # or else its destructor would complain

    def abandon(self) -> None:
        """In a forked process: it is no child of this one, which neither signals nor reaps it."""
        self._popen.returncode = 0
        self.stdout.abandon()
        self.stderr.abandon()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


# Children that were let go: number and time of the start.
_released: list[tuple[int, int]] = []


def reap_released(wanted: int | None = None) -> int | None:
    """Take the exit status of those that have ended; until then the system keeps their numbers.

    Args:
        wanted: The one whose status to return, if it is one of them and has ended.
    """
    found: int | None = None
    for released in list(_released):
        pid, started = released
        status: int | None = None
        # Another one may have the number by now, if somebody else has reaped this one.
        ended = start_time(pid) != started
        if not ended:
            with suppress(ChildProcessError):
                ended, status = (got := os.waitpid(pid, os.WNOHANG))[0] != 0, got[1]
        if ended:
            _released.remove(released)
            if pid == wanted and status is not None:
                found = os.waitstatus_to_exitcode(status)
    return found


def start_time(pid: int) -> int:
    """When a process started, as the system counts; 0 where that cannot be had.

    It tells a process from a later one that has the same number.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program, in parentheses, may hold anything.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


async def settled() -> None:
    """Wait until nothing is left of what watched over children that have ended; a moment at most."""
    await guardian.settled()
