"""Garbage collection, put off while a program loads its event loop."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@contextlib.contextmanager
def collection_put_off() -> Generator[Callable[[], None]]:
    """Put garbage collection off, until the block ends or what this yields is called.

    What is made while modules are loaded stays: to look through it again and again, as the
    collector does while there is more and more of it, takes a good part of the time that loading
    an event loop does, and finds nothing. Only the automatic runs are put off, and they are so
    again afterwards only if they were before.
    """
    put_off = gc.isenabled()
    gc.disable()

    def resume() -> None:
        nonlocal put_off
        if put_off:
            put_off = False
            gc.enable()

    try:
        yield resume
    finally:
        resume()
