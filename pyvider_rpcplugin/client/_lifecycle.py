"""What happens to the plugins of one client: counted, logged, and told to those who listen.

The one place that all of it passes. The names of events, and the fields of their records, are part
of the interface: docs/observability.md lists them.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.exception import PluginExit, RPCPluginError

    from ._log import PluginLog

    Listener = Callable[[str, dict[str, Any]], object]


class Lifecycle:
    """Counts what happens to the plugins of a client, logs it, and tells it.

    Attributes:
        starts: How many plugins have come up.
        failed_starts: How many starts have come to nothing.
        exits: How many plugins have ended by themselves, or were killed.
        restarts: How many starts had to make up for that.
        started_at: When the latest one came up, as `time.time` has it; None: none has.
        start_seconds: How long that took.
        log: Where it is logged; a start sets it.
        listeners: Are called with each event and its fields. They raise nothing and do not wait.
    """

    __slots__ = (
        "exits",
        "failed_starts",
        "listeners",
        "log",
        "name",
        "restarts",
        "start_seconds",
        "started_at",
        "starts",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts = 0
        self.failed_starts = 0
        self.exits = 0
        self.restarts = 0
        self.started_at: float | None = None
        self.start_seconds: float | None = None
        self.log: PluginLog | None = None
        self.listeners: list[Listener] = []

    def started(self, pid: int | None, seconds: float) -> float:
        """A plugin can be called; `seconds` after its start was begun. Return the time."""
        self.starts += 1
        self.started_at = now = time.time()
        self.start_seconds = seconds
        self.tell(
            "plugin.started",
            logging.DEBUG,
            "plugin %s is up",
            self.name,
            pid=pid,
            start_seconds=round(seconds, 6),
        )
        return now

    def start_failed(self, error: RPCPluginError, again_in: float | None) -> None:
        """A start has come to nothing; another attempt follows in so many seconds, or none."""
        self.failed_starts += 1
        facts: dict[str, Any] = {"reason": error.message, "phase": error.phase}
        if again_in is None:  # Whoever wanted it gets the error.
            text = "plugin %s could not be started: %s"
            self.tell("plugin.start_failed", logging.DEBUG, text, self.name, error.message, **facts)
        else:
            facts["delay"] = again_in
            text = "plugin %s: trying again after: %s"
            self.tell("plugin.retrying", logging.WARNING, text, self.name, error.message, **facts)

    def exited(self, pid: int | None, exit_: PluginExit) -> None:
        """A plugin has ended, and nobody had asked it to."""
        self.exits += 1
        self.tell(
            "plugin.exited",
            logging.WARNING,
            "plugin %s %s",
            self.name,
            exit_.describe(),
            pid=pid,
            status=exit_.status,
        )

    def restarting(self, words: str, delay: float) -> None:
        """A plugin is started again, because the one before has ended, or is not healthy."""
        self.restarts += 1
        self.tell(
            "plugin.restarting",
            logging.INFO,
            "plugin %s: starting again in %.3g s: it %s",
            self.name,
            delay,
            words,
            delay=delay,
            reason=words,
        )

    def tell(self, event: str, level: int, message: str, *args: object, **fields: Any) -> None:
        """Log an event, and tell those who listen.

        Args:
            event: Its name.
            level: That of the record.
            message: The record's text, with `args`.
            args: See there.
            fields: What there is to know of it.
        """
        log = self.log
        if log is not None and log.isEnabledFor(level):
            extra = {"event": event, "plugin": self.name, **fields}
            log.log(level, message, *args, extra=extra)
        for listener in self.listeners:
            listener(event, fields)
