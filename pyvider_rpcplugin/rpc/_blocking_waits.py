"""How threads wait: by deadlines of their own, for a socket, and for each other.

Nothing here knows of connections or calls.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

from pyvider_rpcplugin._interrupts import interruptible, interrupts
from pyvider_rpcplugin._loops import Waiter

from ._metadata import Deadline, current_deadline
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from typing import Protocol

    from grpclib.metadata import Deadline as GrpclibDeadline

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    class Place(Protocol):
        """Where threads wait."""

        def block(self, waiter: ThreadWaiter) -> None:
            """Wait until the waiter is woken."""

        def ring_for(self, waiter: ThreadWaiter) -> None:
            """Wake the thread that waits with it where it waits for more than that."""


class BlockingDeadline(Deadline):
    """A point in time on a clock that needs no event loop."""

    @classmethod
    def from_timeout(cls, timeout: float) -> BlockingDeadline:
        """The deadline that is `timeout` seconds from now."""
        return cls(_timestamp=time.monotonic() + timeout)

    def time_remaining(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self._timestamp - time.monotonic())


def blocking_deadline(
    timeout: float | None, deadline: GrpclibDeadline | None
) -> BlockingDeadline | None:
    """The earliest of a timeout, a deadline, and that of the call that this thread handles."""
    inherited = current_deadline.get()
    if timeout is None and deadline is None and inherited is None:
        return None
    candidates = [] if timeout is None else [timeout]
    if deadline is not None:
        candidates.append(_time_remaining(deadline))
    if inherited is not None:
        candidates.append(_time_remaining(inherited))
    return BlockingDeadline.from_timeout(min(candidates))


def _time_remaining(deadline: GrpclibDeadline) -> float:
    if type(deadline) is not Deadline:
        return deadline.time_remaining()
    # It counts by the clock of the loop whose worker thread this is.
    import anyio.from_thread  # noqa: PLC0415 - only within a plugin's handlers

    return anyio.from_thread.run_sync(deadline.time_remaining)


class ThreadWaiter(Waiter):
    """Lets a thread wait, which may read the socket meanwhile."""

    __slots__ = ("due", "gate", "place", "woken")

    def __init__(self, place: Place, due: BlockingDeadline | None) -> None:
        self.place = place
        self.due = due
        self.gate: threading.Lock | None = None
        self.woken = False

    async def wait(self) -> None:
        """Wait for `wake`, without ever giving control to who awaits."""
        self.place.block(self)

    def wake(self) -> None:
        """Let the waiting thread go on. The channel's lock is held."""
        self.woken = True
        if self.gate is not None:
            self.let_look()
        else:
            self.place.ring_for(self)

    def let_look(self) -> None:
        """Let the waiting thread look at the state again."""
        gate = self.gate
        if gate is not None:
            self.gate = None
            gate.release()

    @property
    def waiting(self) -> bool:
        """Whether a thread waits that nobody has woken yet."""
        return not self.woken

    def time_left(self) -> float | None:
        """Seconds until the deadline; None: any number.

        Raises:
            DeadlineExceeded: There are none.
        """
        if self.due is None:
            return None
        left = self.due.time_remaining()
        if left <= 0:
            raise DeadlineExceeded
        return left


class Bell:
    """Wakes the thread that waits for the socket."""

    __slots__ = ("_ear", "_hammer")

    def __init__(self) -> None:
        self._ear, self._hammer = socket.socketpair()
        self._ear.setblocking(False)
        self._hammer.setblocking(False)

    def fileno(self) -> int:
        """What to wait for."""
        return self._ear.fileno()

    def ring(self) -> None:
        """Wake who waits."""
        with contextlib.suppress(BlockingIOError):  # It rings already.
            self._hammer.send(b"\0")

    def silence(self) -> None:
        """Hear it: it rings no more."""
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)

    def close(self) -> None:
        """Take it down."""
        self._ear.close()
        self._hammer.close()


class Poll:
    """Waits for a socket and a bell."""

    __slots__ = ("_bell", "_poll", "_socket", "_writable")

    def __init__(self, sock: HasFileno, bell: Bell) -> None:
        self._socket = sock.fileno()
        self._bell = bell.fileno()
        self._writable = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)

    def wait_writable(self, *, wanted: bool) -> None:
        """Also, or not, for room to send."""
        if wanted is not self._writable:
            self._writable = wanted
            self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if wanted else 0))

    @interruptible
    def wait(self, seconds: float | None) -> list[int]:
        """Wait; return which of the two descriptors have something to say."""
        if interrupts.pending:
            interrupts.deliver()
        return [number for number, _ in self._poll.poll(_milliseconds(seconds))]


class SelectPoll:
    """The same where there is no poll()."""

    __slots__ = ("_bell", "_socket", "_writable")

    def __init__(self, sock: HasFileno, bell: Bell) -> None:
        self._socket = sock.fileno()
        self._bell = bell.fileno()
        self._writable = False

    def wait_writable(self, *, wanted: bool) -> None:
        """Also, or not, for room to send."""
        self._writable = wanted

    @interruptible
    def wait(self, seconds: float | None) -> list[int]:
        """Wait; return which of the two descriptors have something to say."""
        if interrupts.pending:
            interrupts.deliver()
        both = [self._socket, self._bell]
        readable, writable, _ = select.select(both, both[: self._writable], [], seconds)
        return list({*readable, *writable})


def _milliseconds(seconds: float | None) -> int | None:
    # Rounded up: a wait that ends a moment too early would only be begun again.
    return None if seconds is None else min(int(seconds * 1000) + 1, 1 << 30)


@interruptible
def wait_for(gate: threading.Lock, seconds: float | None) -> None:
    """Wait until the gate is opened, or so long."""
    if interrupts.pending:
        interrupts.deliver()
    gate.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))


def poll_for(sock: HasFileno, bell: Bell) -> Poll | SelectPoll:
    """What waits for both on this system."""
    return Poll(sock, bell) if hasattr(select, "poll") else SelectPoll(sock, bell)
