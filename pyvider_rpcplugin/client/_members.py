"""The plugins of a supervised client, the places that they fill, and their successors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from pyvider_rpcplugin._tasks import Session
    from pyvider_rpcplugin.rpc import Channel

    from ._launch import Launch


class Replacement:
    """A plugin's successor that somebody waits for."""

    def __init__(self, drain_timeout: float | None) -> None:
        self.drain_timeout = drain_timeout
        self.settled = anyio.Event()
        self.error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        self.error = error
        self.settled.set()


class Member:
    """One plugin that was started.

    Attributes:
        complaint: What its health service said last that was bad.
        refused: How often it was to be replaced for what it had become, and its successor did not
            work.
    """

    def __init__(self, launch: Launch, session: Session[None]) -> None:
        assert launch.channel is not None  # noqa: S101 - for the type checker
        self.launch = launch
        self.session = session
        self.channel: Channel = launch.channel
        self.began = anyio.current_time()
        self.complaint = ""
        self.refused = 0


class Place:
    """What one plugin fills, over all its restarts.

    Attributes:
        member: The plugin that is there now; None while one is being started, or waited for.
        replacement: That a new one is wanted, and who waits for it.
        asked: Set as long as there is one.
        idle: Set when the plugin is to be stopped because there are no calls.
        trial: Whether there is to be no other attempt if the first start fails.
    """

    def __init__(
        self, member: Member | None = None, replacement: Replacement | None = None
    ) -> None:
        self.member = member
        self.replacement: Replacement | None = None
        self.asked = anyio.Event()
        self.idle = anyio.Event()
        self.trial = replacement is not None
        if replacement is not None:
            self.replace(replacement)

    def replace(self, replacement: Replacement) -> None:
        """Ask for a new plugin."""
        self.replacement = replacement
        self.asked.set()

    def settle(self, error: Exception | None = None) -> None:
        """Say that the new plugin is there, or why there is none. Without one asked for: nothing."""
        if self.replacement is not None:
            replacement, self.replacement = self.replacement, None
            self.asked = anyio.Event()
            replacement.settle(error)
