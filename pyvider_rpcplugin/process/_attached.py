"""A plugin's process that somebody else has started: watched and signalled by its number."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import ConfigError, TransportError
from pyvider_rpcplugin.process._spec import SameAddresses

if sys.platform != "win32":
    from pyvider_rpcplugin.process._pidfd import open_pidfd
    from pyvider_rpcplugin.process._posix import reap_released, start_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pyvider_rpcplugin.handshake import ReattachConfig
    from pyvider_rpcplugin.process.runners import AttachedRunner

__all__ = ["attach_process"]

logger = event_logger(__name__)

# How often a process is looked for where the system does not tell when it ends.
_INTERVAL = 0.5


@asynccontextmanager
async def attach_process(record: ReattachConfig) -> AsyncGenerator[AttachedRunner, None]:
    """Watch the process of a plugin that runs already, for the length of a block.

    Args:
        record: What is known of it.

    Yields:
        What it can be watched and ended by. Leaving the block changes nothing for it.

    Raises:
        TransportError: There is no such process any more.
        ConfigError: This system has no way to do it.
    """
    if not record.pid:
        yield _Unknown()
        return
    if sys.platform == "win32":
        msg = "a process that others have started cannot be watched on Windows"
        raise ConfigError(msg, phase="attach")
    process = _Attached(record)
    try:
        yield process
    finally:
        process.close()


def started(pid: int) -> int:
    """When a process started, as the system counts; 0 where that cannot be had."""
    return start_time(pid) if pid and sys.platform != "win32" else 0


class _Attached(SameAddresses):
    def __init__(self, record: ReattachConfig) -> None:
        self.pid: int | None = record.pid
        self._number = record.pid
        self._group = record.group
        # First the descriptor, then the look at whose it is: from then on it stays that one's.
        self._pidfd = open_pidfd(record.pid)
        self._started = start_time(record.pid)
        if not self._lives():
            self.close()
            msg = f"cannot attach to the plugin: there is no process {record.pid}"
            raise TransportError(msg, "It has ended since the record was made.", phase="attach")
        if record.started and self._started and record.started != self._started:
            self.close()
            msg = f"cannot attach to the plugin: another process has its number {record.pid}"
            raise TransportError(msg, "It has ended since the record was made.", phase="attach")

    @property
    def id(self) -> str:
        return str(self._number)

    def _lives(self) -> bool:
        if self._pidfd is not None:
            import select  # noqa: PLC0415 - loaded by every loop

            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return not poll.poll(0)
        try:
            os.kill(self._number, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it runs as another user
            pass
        # By another one that got the number, or by one that has ended and was not reaped yet.
        return start_time(self._number) == self._started and not _is_zombie(self._number)

    async def wait(self) -> int | None:
        """Wait until it has ended; the status can only be had if it was started by this process."""
        while self._lives():
            if self._pidfd is not None:
                await anyio.wait_readable(self._pidfd)
            else:
                await anyio.sleep(_INTERVAL)
        return reap_released(self._number)

    async def terminate(self) -> None:
        """Ask it to end, with its group if it has one of its own."""
        self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        """End it, likewise."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if not self._lives():
            return
        with suppress(ProcessLookupError):
            try:
                if self._group and os.getpgid(self._number) == self._number:
                    os.killpg(self._number, number)
                elif self._pidfd is not None and hasattr(signal, "pidfd_send_signal"):
                    signal.pidfd_send_signal(self._pidfd, number)
                else:
                    os.kill(self._number, number)
            except PermissionError:
                logger.warning("process.signal.refused id=%s signal=%s", self.id, number.name)

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class _Unknown(SameAddresses):
    """A plugin whose process nobody has named: it can only be asked by its own service."""

    pid: int | None = None
    id: str = "of unknown number"

    def __init__(self) -> None:
        self._asked = anyio.Event()

    async def wait(self) -> int | None:
        """Wait until there is nothing more that could be done to end it."""
        await self._asked.wait()
        return None

    async def terminate(self) -> None:
        self._asked.set()

    async def kill(self) -> None:
        self._asked.set()


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except (OSError, IndexError):
        return False
