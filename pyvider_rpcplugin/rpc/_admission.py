"""How much a server takes on at a time, and what it says to those that are too many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
from grpclib.const import Status

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.http2 import ErrorCode, H2Connection

from ._counts import CallCounts
from ._metadata import PUSHBACK_KEY
from ._request import Refusal
from ._status import CallStatus

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from ._options import RPCOptions

logger = event_logger(__name__)

_OK = Status.OK

# Milliseconds after which a refused call may be tried again, at the earliest.
_SHORTEST_PAUSE = 100
# So many connections that are too many are told so at a time; all others are just closed.
_MOST_FAREWELLS = 16
_FAREWELL_TIMEOUT = 1.0
_LOG_INTERVAL = 1.0


class Admission:
    """Counts the connections and the calls of one server.

    Attributes:
        calls: Calls whose handlers have not ended, over all connections; those that are vital are
            not counted.
        counts: How many there were, likewise, and how they ended; those that were refused, too.
        vital: Methods whose calls are always taken: what the plugin itself lives by.
        apart: Methods whose calls are not in `counts`: what else is not the application's.
    """

    def __init__(self, options: RPCOptions) -> None:
        self.calls: int = 0
        self.counts: CallCounts = CallCounts()
        self.vital: set[str] = set()
        self.apart: set[str] = set()
        self._most_calls = options.max_concurrent_calls
        self._most_connections = options.max_connections
        self._farewells = 0
        self._logged_at = -_LOG_INTERVAL
        self._unlogged = 0

    def refuse_call(self, path: str) -> Refusal | None:
        """Why a call cannot be taken now; None if it can."""
        if self.calls < self._most_calls or path in self.vital:
            return None
        # By chance: those that were refused together should not come back together.
        pause = _SHORTEST_PAUSE + os.urandom(1)[0]
        message = f"the server is busy with {self.calls} calls; try again in {pause} ms"
        return Refusal(
            CallStatus(Status.UNAVAILABLE, message), fields=((PUSHBACK_KEY, str(pause)),)
        )

    def begin_call(self, path: str) -> None:
        """Count a call."""
        if path not in self.vital:
            self.calls += 1
            if path not in self.apart:
                self.counts.started += 1

    def end_call(self, path: str, status: Status) -> None:
        """Count it no longer as one that runs."""
        if path not in self.vital:
            self.calls -= 1
            if path in self.apart:
                pass
            elif status is _OK:  # Nearly always, and so not by a call of its own.
                self.counts.succeeded += 1
            else:
                self.counts.end(status)

    def has_room(self, connections: int) -> bool:
        """Whether one more connection may be added to so many."""
        return connections < self._most_connections

    async def turn_away(self, stream: ByteStream) -> None:
        """Close a connection that is one too many, with a word to its client, if that listens."""
        self.log_full()
        try:
            if self._farewells < _MOST_FAREWELLS:
                self._farewells += 1
                try:
                    await _say_farewell(stream)
                finally:
                    self._farewells -= 1
        finally:
            await anyio.aclose_forcefully(stream)

    def log_full(self) -> None:
        """Log that there were too many connections: once a second, however many come."""
        now = anyio.current_time()
        self._unlogged += 1
        if now - self._logged_at >= _LOG_INTERVAL:
            logger.warning(
                "rpc.connections.full limit=%d turned_away_or_dropped=%d",
                self._most_connections,
                self._unlogged,
            )
            self._logged_at, self._unlogged = now, 0


async def _say_farewell(stream: ByteStream) -> None:
    h2 = H2Connection(client_side=False)
    h2.initiate()
    h2.close(ErrorCode.ENHANCE_YOUR_CALM, "too many connections")
    with anyio.move_on_after(_FAREWELL_TIMEOUT):
        try:
            await stream.send(h2.take_output())
            # What was sent would be lost if it were closed with something unread.
            while True:
                await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
