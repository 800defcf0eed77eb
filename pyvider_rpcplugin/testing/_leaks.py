"""What a test has left behind: processes, threads, descriptors, folders of sockets."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyvider_rpcplugin.transport._folder import PREFIX

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["assert_nothing_leaked"]

# Threads that a pool keeps for later use, by the beginning of their names.
_POOLS = ("AnyIO worker thread", "Trio thread ", "asyncio_")
_KINDS = ("socket:", "pipe:", "anon_inode:", "/memfd:")
_LOCK = "lock"


@contextlib.contextmanager
def assert_nothing_leaked(*, within: float = 3.0, kill: bool = True) -> Generator[None]:
    """Fail with an AssertionError if a block leaves something behind that it has made.

    That is: child processes and what they have started, threads (but for those that the event
    loops keep for later), open sockets, pipes and other descriptors without a file, and folders
    for plugins' sockets in the temporary folder. Processes and descriptors are seen on Linux.

    Where the block is async, what it may leave has to be closed inside of it; around an event loop,
    which opens descriptors of its own, the call of `anyio.run` has to be inside.

    Args:
        within: Seconds that processes have to end, which may still do so by themselves.
        kill: Whether processes that are left are killed, so that the next test has peace.

    Raises:
        AssertionError: Something is left; all of it is named. An exception of the block's own has
            precedence.
    """
    pids, threads = set(_descendants()), set(threading.enumerate())
    descriptors, folders = open_descriptors(), _folders()
    yield
    left = _processes_left(pids, within, kill=kill)
    left += threads_left(threads)
    left += descriptors_left(descriptors)
    left += [f"folder {path}" for path in sorted(_folders() - folders) if _is_ours(path)]
    if left:
        msg = f"left behind: {'; '.join(left)}"
        raise AssertionError(msg)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name is in parentheses and may itself hold some.
    return int(stat.rpartition(b")")[2].split()[1])


def command_of(pid: int) -> str:
    """The command of a process, for people."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    return b" ".join(words).decode(errors="replace").strip()[:120] or "not reaped"


def all_pids() -> set[int]:
    """The numbers of all processes."""
    try:
        return {int(name) for name in os.listdir("/proc") if name.isdigit()}
    except FileNotFoundError:
        return set()


def _descendants() -> set[int]:
    """Our children, theirs, and so on."""
    children: dict[int | None, list[int]] = {}
    for pid in all_pids():
        children.setdefault(parent_of(pid), []).append(pid)
    found: set[int] = set()
    above = [os.getpid()]
    while above:
        new = children.get(above.pop(), [])
        found.update(new)
        above += new
    return found


def _processes_left(before: set[int], within: float, *, kill: bool) -> list[str]:
    give_up = time.monotonic() + within
    while left := _descendants() - before:
        if time.monotonic() > give_up:
            break
        time.sleep(0.01)
    named = [f"process {pid} ({command_of(pid)})" for pid in sorted(left)]
    for pid in left if kill else ():
        end_process(pid)
    return named


def end_process(pid: int) -> None:
    """Kill a process, and reap it if it is a child of ours."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def threads_left(before: set[threading.Thread]) -> list[str]:
    """Name the threads that were not there before and go on."""
    left: list[str] = []
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(_POOLS) or thread.name.endswith("(_poll_wrapper)"):
            continue
        thread.join(timeout=1)
        if thread.is_alive():
            left.append(f"thread {thread.name}")
    return left


def open_descriptors() -> dict[str, str]:
    """The open sockets, pipes, pidfds and memfds of this process."""
    found: dict[str, str] = {}
    try:
        numbers = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return found
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith(_KINDS):
            found[number] = target
    return found


def descriptors_left(before: dict[str, str]) -> list[str]:
    """Name the descriptors that are open now and were not before."""

    def new() -> list[str]:
        return [
            f"descriptor {number} ({what})"
            for number, what in open_descriptors().items()
            if before.get(number) != what
        ]

    if not new():
        return []
    # Only now, because it takes time: an object in a cycle still holds its descriptor, and
    # collecting it brings the warning that names its kind.
    gc.collect()
    return new()


def _folders() -> set[str]:
    """The folders for sockets in the temporary folder."""
    place = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        return {entry.path for entry in os.scandir(place) if entry.name.startswith(PREFIX)}
    return set()


def _is_ours(folder: str) -> bool:
    """Whether this process has made a folder and holds it, or nobody does any more.

    Other programs make such folders, too, and hold their locks.
    """
    path = os.path.join(folder, _LOCK)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where there are no such folders

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _holds(path)
    finally:
        os.close(lock)
    return True


def _holds(path: str) -> bool:
    """Whether a file is open in this process."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}") == path:
                return True
    return False
