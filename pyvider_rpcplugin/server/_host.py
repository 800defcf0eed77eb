"""Noticing that the host has gone, so that its plugin does not outlive it."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import anyio

from ._logging import log_written_by

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_STDERR = 2


async def outlive_host(stdout: int, log: Callable[[bytes], object]) -> None:
    """Once the host has gone, let nothing depend on its being there.

    What is written to the standard error then goes nowhere: this process, its children and its
    libraries would otherwise be told that their pipe is broken, or be ended by that. So for what
    the standard output was before the handshake line. Log records go to the next host.

    Args:
        stdout: The descriptor that the handshake line was written to.
        log: Takes the lines of the log instead.
    """
    async with anyio.create_task_group() as tg:
        tg.start_soon(_release, stdout)
        if await _release(_STDERR):
            with log_written_by(log):
                await anyio.Event().wait()


async def _release(descriptor: int) -> bool:
    """Once nobody reads this pipe any more, have it lead nowhere; False if it is no pipe."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return False
    await anyio.wait_readable(descriptor)
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, descriptor, inheritable=os.get_inheritable(descriptor))
    os.close(nowhere)
    return True


async def wait_for_host_to_end(stdout: int) -> None:
    """Return when the host has ended, however it did.

    Two things tell: the parent process has ended, or nobody holds the other end of the pipe that
    the handshake line went to. The second works through wrappers such as `sh -c` and `env`. If
    neither can be watched here, this waits for ever.

    Args:
        stdout: The descriptor that the handshake line was written to.
    """
    gone = anyio.Event()

    async def watch(descriptor: int) -> None:
        await anyio.wait_readable(descriptor)
        gone.set()

    with _parent() as parent:
        async with anyio.create_task_group() as tg:
            if parent is not None:
                tg.start_soon(watch, parent)
            # Its reader's end makes the writing end of a pipe "readable" (POLLERR).
            if stat.S_ISFIFO(os.fstat(stdout).st_mode):
                tg.start_soon(watch, stdout)
            await gone.wait()
            tg.cancel_scope.cancel()


@contextlib.contextmanager
def _parent() -> Generator[int | None]:
    """Open a descriptor that becomes readable when the parent process ends, where there is one."""
    open_pidfd = getattr(os, "pidfd_open", None)
    descriptor: int | None = None
    if open_pidfd is not None:
        # No such system call, no such process (an init outside of our container), or no right.
        with contextlib.suppress(OSError):
            descriptor = open_pidfd(os.getppid())
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
