"""A small process beside the host that ends its plugins should the host be gone without having done it.

Plugins of this library notice for themselves that their host has gone. Others, written in Go say,
do not, and neither does one that hangs, or that has not got that far yet. No signal can be arranged
for a parent's death: the kernel takes the end of the thread that started the plugin for it.

The guardian reads from a pipe which processes there are to end; the end of the pipe is the end of the
host. It is a shell, which is there and ready in a millisecond, and exists as long as it guards anything.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.process._pidfd import open_pidfd

if TYPE_CHECKING:
    from collections.abc import Generator

logger = event_logger(__name__)

_SHELL = "/bin/sh"
# A target is a process, with a minus before it the group of one, or a pipe: the groups of those that
# have it as their standard output, which are found once it matters. The name is the script's $0.
_SCRIPT = r"""
set -f
trap '' HUP INT QUIT TERM
targets=
while read -r verb target; do
    left=
    for one in $targets; do
        [ "$one" = "$target" ] || left="$left $one"
    done
    targets=$left
    [ "$verb" = add ] && targets="$left $target"
done
[ -n "$targets" ] || exit 0
found=
for one in $targets; do
    case $one in
    pipe=*)
        set +f
        fds=$(ls -l /proc/[0-9]*/fd/1)
        set -f
        pids=$(echo "$fds" | sed -n "s|.* /proc/\([0-9]*\)/fd/1 -> pipe:\[${one#pipe=}\]$|\1|p")
        for pid in $pids; do found="$found -$pid $pid"; done ;;
    *) found="$found $one" ;;
    esac
done
for one in $found; do kill -s TERM -- "$one"; done
sleep 0.5
for one in $found; do kill -s KILL -- "$one"; done
exit 0
"""
_EXIT_TIMEOUT = 1.0


class Guardian:
    """Starts the guardian when there is something to guard, and lets it end when there is nothing.

    Safe to use from several threads: loops may run in more than one. Nothing here waits for the
    guardian, but `settled`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._targets: set[str] = set()
        # Told to end, and not reaped yet.
        self._ending: list[subprocess.Popen[bytes]] = []
        self._missing = False
        self._known_at_exit = False
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def expecting(self, stdout: int) -> Generator[None]:
        """Have a process guarded while it is started, in a block, before its number is known.

        Otherwise a host that is killed at that moment, which takes a millisecond or two, would leave
        the process. Until the block has added it, it is known by its standard output. That works
        where there is a /proc as Linux has it.

        Args:
            stdout: The pipe that will be the standard output of the process.
        """
        target = f"pipe={os.fstat(stdout).st_ino}"
        with self._lock:
            if self._process is not None or self._start():
                self._targets.add(target)
                self._tell(f"add {target}\n")
        try:
            yield
        finally:
            with self._lock:
                self._drop(target)

    def add(self, pid: int, *, group: bool) -> None:
        """Have a process ended when this one is gone.

        Args:
            pid: The process.
            group: Whether it leads a group, which is ended with it.
        """
        with self._lock:
            if self._process is None and not self._start():
                return
            target = _target(pid, group=group)
            self._targets.add(target)
            self._tell(f"add {target}\n")

    def drop(self, pid: int, *, group: bool) -> None:
        """Forget a process: before it is reaped, as its number may then be another's."""
        with self._lock:
            self._drop(_target(pid, group=group))

    def _drop(self, target: str) -> None:
        if target not in self._targets:
            return
        self._targets.discard(target)
        self._tell(f"drop {target}\n")
        if not self._targets:
            self._end()

    def _start(self) -> bool:
        if self._missing:
            return False
        self._reap()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the script above
                [_SHELL, "-c", _SCRIPT, "plugin-guardian"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath},
                cwd="/",
                # Ctrl-C at a terminal is meant for the host; it decides about its plugins.
                start_new_session=True,
            )
        except OSError as exc:
            self._missing = True
            logger.warning("process.guardian.missing shell=%s reason=%s", _SHELL, exc)
            return False
        if not self._known_at_exit:
            self._known_at_exit = True
            atexit.register(self._release)
        return True

    def _tell(self, line: str) -> None:
        # One write of a few octets: it is whole, and the guardian reads faster than plugins start.
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), line.encode())

    def _end(self) -> None:
        """Close the pipe: the guardian, which has nothing to do any more, then ends at once."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        self._ending.append(process)
        self._reap()

    def _reap(self) -> None:
        self._ending = [process for process in self._ending if process.poll() is None]

    async def settled(self) -> None:
        """Wait until a guardian that has nothing to do any more has ended; usually there is none.

        Cancellation:
            It is not cancelled: it takes a millisecond, and at most a second.
        """
        ending = self._unreaped()
        if not ending:
            return
        with anyio.move_on_after(_EXIT_TIMEOUT, shield=True):
            for process in ending:
                await _wait_ended(process)
        left = self._unreaped()
        for process in ending:
            if process in left:
                logger.warning("process.guardian.left pid=%d", process.pid)

    def settle(self) -> None:
        """The same where there is no event loop: it blocks."""
        for process in self._unreaped():
            with suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT_TIMEOUT)
        self._unreaped()

    def _unreaped(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not ended; the numbers of the others may be somebody else's already."""
        with self._lock:
            self._reap()
            return list(self._ending)

    def _release(self) -> None:
        """At the end of the interpreter: what is guarded now, the guardian ends."""
        for process in (self._process, *self._ending):
            if process is not None:
                process.returncode = 0  # or else its destructor would complain

    def _forget(self) -> None:
        """In a forked child: the guardian is its parent's, and must not wait for the child's end."""
        self._release()
        process, self._process = self._process, None
        self._lock = threading.Lock()
        self._targets = set()
        self._ending = []
        if process is not None and process.stdin is not None:
            process.stdin.close()


def _target(pid: int, *, group: bool) -> str:
    return f"-{pid}" if group else str(pid)


async def _wait_ended(process: subprocess.Popen[bytes]) -> None:
    pidfd = open_pidfd(process.pid)
    if pidfd is None:  # there is no such thing, or no such process any more
        limiter = anyio.CapacityLimiter(1)
        wait = partial(process.wait, _EXIT_TIMEOUT)
        with suppress(subprocess.TimeoutExpired):
            await anyio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=limiter)
        return
    try:
        await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)


guardian = Guardian()
