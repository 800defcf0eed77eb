"""Waiting for signals, the same on every loop, and putting the handlers back afterwards.

The loops' own ways do not serve here: asyncio's forgets the handler that was there before, and
trio's is trio's. Python's handlers run in the main thread, between two of its instructions, but a
loop that is asleep in the kernel has to be woken for that; what wakes it is the wakeup descriptor.
Where a loop has set one of its own, that one is used.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator
    from types import FrameType


class Arrivals:
    """The signals that have come."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self._numbers: list[int] = []

    def note(self, number: int) -> None:
        """Keep a signal for who waits."""
        self._numbers.append(number)

    async def wait(self) -> int:
        """Wait for the next signal and return its number. One that came before is not lost."""
        while not self._numbers:
            await anyio.wait_readable(self._receiver)
            with contextlib.suppress(BlockingIOError):
                self._receiver.recv(4096)
        return self._numbers.pop(0)


@contextlib.contextmanager
def caught_signals(wanted: Collection[int], ignored: Collection[int]) -> Generator[Arrivals]:
    """Catch signals for the length of a block, which has to be in the main thread.

    Args:
        wanted: Those that `Arrivals.wait` returns.
        ignored: Those that do nothing. They get a handler that does nothing, rather than SIG_IGN,
            which children would inherit.
    """
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    arrivals = Arrivals(receiver)

    def on_signal(number: int, frame: FrameType | None) -> None:
        arrivals.note(number)
        with contextlib.suppress(BlockingIOError):  # full: then the waiter will wake anyway
            sender.send(b"\0")

    with receiver, sender, _wakeup_descriptor(sender.fileno()), contextlib.ExitStack() as stack:
        for number in wanted:
            stack.enter_context(_handler(number, on_signal))
        for number in ignored:
            stack.enter_context(_handler(number, _nothing))
        yield arrivals


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing."""


@contextlib.contextmanager
def _handler(number: int, handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    previous = signal.getsignal(number)
    signal.signal(number, handler)
    try:
        yield
    finally:
        # Somebody else's newer handler stays, and so does one that Python cannot put back (None).
        if previous is not None and signal.getsignal(number) is handler:
            signal.signal(number, previous)


@contextlib.contextmanager
def _wakeup_descriptor(descriptor: int) -> Generator[None]:
    """Have arriving signals written to `descriptor`, unless somebody else is told of them."""
    previous = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    if previous != -1:
        signal.set_wakeup_fd(previous, warn_on_full_buffer=False)
    try:
        yield
    finally:
        current = signal.set_wakeup_fd(-1)
        if current not in {-1, descriptor}:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
