"""The plugins of a supervised client, and their successors."""

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
        replacing: Set once it is to be replaced, by `replacement`.
    """

    def __init__(self, launch: Launch, session: Session[None]) -> None:
        assert launch.channel is not None  # noqa: S101 - for the type checker
        self.launch = launch
        self.session = session
        self.channel: Channel = launch.channel
        self.began = anyio.current_time()
        self.complaint = ""
        self.replacing = anyio.Event()
        self.replacement: Replacement | None = None

    def replace(self, replacement: Replacement) -> None:
        self.replacement = replacement
        self.replacing.set()

    def keep(self) -> None:
        """Go on with this one after all."""
        self.replacing = anyio.Event()
        self.replacement = None
