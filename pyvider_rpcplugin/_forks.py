"""What a process that is forked off must leave alone: all that it inherits is its parent's.

A connection used by both would carry torn frames, and a child that ends would clean up behind a
parent that goes on. So in a child, sockets are closed (which the other end does not notice, as the
parent still has them), and plugins, files and folders are nobody's any more.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """What belongs to the process that made it."""

    def abandon(self) -> None:
        """Called in a forked child: let go of it without a word to anybody. May not raise."""


_inherited: WeakSet[Inherited] = WeakSet()

generation: int = 0
"""How many forks lead from the process that loaded this module to this one."""


def keep_from_children(thing: Inherited) -> None:
    """See to it that processes which are forked off leave `thing` alone."""
    _inherited.add(thing)


def _after_fork() -> None:
    global generation  # noqa: PLW0603 - a process's own
    generation += 1
    for thing in list(_inherited):
        thing.abandon()
    _inherited.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
