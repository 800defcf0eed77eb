"""Ctrl-C in threads that share something: never in the middle of a change.

Python runs a signal's handler between any two instructions of the main thread, and SIGINT's raises
KeyboardInterrupt there. Where that thread changes what others use as well, the handler is put off
until the change is complete; where it waits, it is run at once. Which is which, the handler sees by
the functions that it finds on the stack, so nothing is to be done before and after each change.

It works while `hold` is in force, which needs the main thread. Without it, and for other signals
whose handlers raise, whoever changes shared state has to expect an exception anywhere.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

F = TypeVar("F", bound="Callable[..., Any]")

_protected: set[CodeType] = set()
_open: set[CodeType] = set()


def protected(function: F) -> F:
    """Put interrupts off while this function runs; who calls it delivers them afterwards."""
    _protected.add(function.__code__)
    return function


def interruptible(function: F) -> F:
    """Let interrupts in while this function runs, also if a protected one has called it."""
    _open.add(function.__code__)
    return function


class Interrupts:
    """The handler of SIGINT.

    Attributes:
        pending: An interrupt was put off. Only the main thread delivers it.
    """

    def __init__(self) -> None:
        self.pending: bool = False
        self._holders = 0
        self._previous: Any = None

    def hold(self) -> bool:
        """Have interrupts put off; `release` it as often. Returns whether it could be done."""
        if threading.current_thread() is not threading.main_thread():
            return False
        if signal.getsignal(signal.SIGINT) is not self:
            previous = signal.getsignal(signal.SIGINT)
            if not callable(previous):  # Ctrl-C is ignored, or ends the process.
                return False
            self._previous = previous
            signal.signal(signal.SIGINT, self)
            self._holders = 0
        self._holders += 1
        return True

    def release(self) -> None:
        """Undo one `hold`. From another thread than the main one, the handler stays."""
        self._holders -= 1
        if self._holders > 0 or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, self._previous)

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        """Handle the signal, now or later."""
        at: FrameType | None = frame
        while at is not None:
            if at.f_code in _open:
                break
            if at.f_code in _protected:
                self.pending = True
                return None
            at = at.f_back
        self.pending = False  # One stands for all before it.
        return self._previous(number, frame)

    def deliver(self) -> None:
        """Handle what was put off. Call it where an exception does no harm."""
        if threading.current_thread() is threading.main_thread():
            self.pending = False
            self._previous(signal.SIGINT, None)


interrupts = Interrupts()
