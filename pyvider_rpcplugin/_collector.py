"""Garbage collection, put off while modules are loaded."""

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
    collector does while there is more and more of it, takes time and finds nothing. Only the
    automatic runs are put off, and they are so again afterwards only if they were before. What
    there is by then counts as old, as it would after some runs: otherwise the first one would
    look through all of it at once, which takes as long. A later run for what is old collects
    whatever of it is garbage.
    """
    put_off = gc.isenabled()
    gc.disable()

    def resume() -> None:
        nonlocal put_off
        if not put_off:
            return
        put_off = False
        # Taking back what a program has frozen itself is not ours to do. Nor can it be told from what
        # Python 3.12 has there of its own, so there this is left out.
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()

    try:
        yield resume
    finally:
        resume()
