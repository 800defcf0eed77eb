"""A channel whose calls go to one of several others, each to whichever has the least to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._loops import Home, waiter_factory
from pyvider_rpcplugin._tasks import unwrapped

from ._call import wait_until
from ._channel import Channel
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from anyio.abc import ByteStream, TaskStatus
    from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase

    from pyvider_rpcplugin._loops import Waiter

    from ._connection import Incoming, RPCConnection
    from ._metadata import Deadline
    from ._options import RPCOptions


class _Waiting:
    """A call that waits until there is a channel for it."""

    __slots__ = ("error", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.error: Exception | None = None


class BalancedChannel(Channel):
    """Calls to several endpoints that offer the same, and that come and go.

    What it is made of are channels that others run and close. A call goes to the one with the
    fewest open calls. When there is none, calls wait until one is added, within their deadlines.
    Nothing that has been sent is ever sent again.

    Args:
        codec: How messages are written; Protocol Buffers by default.
        status_details_codec: How the details of an error are.
        options: As of all channels that are added.
        on_wanted: Called whenever a call finds no channel to go to.
        on_busy: Called whenever a call goes to a channel that has `busy_calls` open ones already.
        busy_calls: How many these are.

    Attributes:
        calls_begun: How many calls have been given a connection.
    """

    def __init__(
        self,
        *,
        codec: CodecBase | None = None,
        status_details_codec: StatusDetailsCodecBase | None = None,
        options: RPCOptions | None = None,
        on_wanted: Callable[[], None] | None = None,
        on_busy: Callable[[], None] | None = None,
        busy_calls: int = 1,
    ) -> None:
        super().__init__(
            _connect_nowhere,
            codec=codec,
            status_details_codec=status_details_codec,
            options=options,
        )
        self.calls_begun: int = 0
        self._on_wanted = on_wanted
        self._on_busy = on_busy
        self._busy_calls = busy_calls
        self._members: list[Channel] = []
        self._leaving: list[Channel] = []
        self._waiting: set[_Waiting] = set()
        self._draining: set[Waiter] = set()
        self._refusal: Callable[[], Exception] | None = None
        self._hopeless = False

    @property
    def alive(self) -> bool:
        """Whether calls may still begin, now or in a while."""
        return super().alive and (not self._hopeless or bool(self._members))

    @property
    def members(self) -> tuple[Channel, ...]:
        """The channels that new calls may go to."""
        return tuple(self._members)

    def add(self, channel: Channel) -> None:
        """Let calls go to a channel, which somebody else runs; calls that wait go on.

        Does nothing once this one is closed.
        """
        if self._closed:
            return
        if channel.base_fields != self.base_fields:  # with TLS, or without
            self.base_fields = channel.base_fields
            self._blocks.clear()
        self.refuse(None)
        self._members.append(channel)
        self._wake_waiting()

    def remove(self, channel: Channel) -> None:
        """Send no more calls to a channel; those that run there may finish. Repeating is fine."""
        if channel in self._members:
            self._members.remove(channel)
            # Its calls report their ends to this channel.
            for old in self._leaving[:]:
                if not old.open_calls(self):
                    self._leaving.remove(old)
                    sent, received = old.bytes_moved()
                    sent_before, received_before = self._ended_bytes
                    self._ended_bytes = (sent_before + sent, received_before + received)
            self._leaving.append(channel)

    def fail_waiting(self, error: Callable[[], Exception]) -> None:
        """Fail the calls that wait for a channel now, each with an exception of its own."""
        for waiting in self._waiting:
            waiting.error = error()
        self._wake_waiting()

    def refuse(self, error: Callable[[], Exception] | None, *, final: bool = False) -> None:
        """Fail calls that find no channel, those that wait included, until one is added.

        Args:
            error: Makes the exception of each call; None: let calls wait.
            final: Whether it makes no sense to try again in a moment.
        """
        self._refusal = error
        self._hopeless = final
        if error is not None:
            self.fail_waiting(error)

    @property
    def waiting(self) -> bool:
        """Whether calls wait for a channel."""
        return any(waiting.error is None for waiting in self._waiting)

    def calls(self) -> int:
        """How many calls are open or wait to begin."""
        open_ = sum(channel.open_calls(self) for channel in (*self._members, *self._leaving))
        return open_ + len(self._waiting)

    def bytes_moved(self) -> tuple[int, int]:
        """How many octets were sent and received, on all channels so far."""
        sent, received = self._ended_bytes
        for channel in (*self._members, *self._leaving):
            more_sent, more_received = channel.bytes_moved()
            sent += more_sent
            received += more_received
        return sent, received

    def live_connections(self) -> tuple[Incoming, ...]:
        """The connections that are open."""
        return tuple(one for member in self._members for one in member.live_connections())

    def calls_waiting(self) -> int:
        """How many calls wait for a connection, or for their turn on it."""
        return len(self._waiting) + sum(member.calls_waiting() for member in self._members)

    def last_rtt(self) -> float | None:
        """Seconds that the answer to the last PING took."""
        return max(
            (rtt for one in self.live_connections() if (rtt := one.rtt) is not None), default=None
        )

    def connection_now(self) -> RPCConnection | None:
        """The connection that is best for a call, if one can begin at once."""
        if self._home is not None:
            self._home.check("the channel")
        best: RPCConnection | None = None
        chosen: Channel | None = None
        for member in self._members:
            ready = member.connection_now()
            if ready is None:
                continue
            if best is None or len(ready.h2.streams) < len(best.h2.streams):
                best, chosen = ready, member
        if chosen is not None:
            self.calls_begun += 1
            if self._on_busy is not None and chosen.open_calls(self) >= self._busy_calls:
                self._on_busy()
        return best

    async def wait_connection(self, deadline: Deadline | None) -> RPCConnection:
        """Wait until a call can begin somewhere.

        Raises:
            GRPCError: UNAVAILABLE: the channel is closed, calls are refused, or no endpoint can be
                connected to.
            DeadlineExceeded: The deadline passed first.
        """
        told = False
        tried: list[Channel] = []
        while True:
            ready = self.connection_now()
            if ready is not None:
                return ready
            member = self._least_busy(tried)
            if member is not None:
                try:
                    connection = await member.wait_connection(deadline)
                    self.calls_begun += 1
                    return connection
                except DeadlineExceeded:
                    raise
                except GRPCError:
                    tried.append(member)
                    if member.alive and self._least_busy(tried) is None:
                        raise
                    continue
            if self._closed:
                raise GRPCError(Status.UNAVAILABLE, "the channel is not open")
            if self._refusal is not None:
                self._raise_refusal(self._refusal)
            if not told:
                told = True
                if self._on_wanted is not None:
                    self._on_wanted()
                continue  # It may have added one already.
            await self._wait_for_member(deadline)
            told = False
            tried.clear()

    def _least_busy(self, tried: list[Channel]) -> Channel | None:
        left = [member for member in self._members if member.alive and member not in tried]
        return min(left, key=lambda member: member.open_calls(None), default=None)

    @staticmethod
    def _raise_refusal(refusal: Callable[[], Exception]) -> NoReturn:
        raise refusal()

    async def _wait_for_member(self, deadline: Deadline | None) -> None:
        waiting = _Waiting(waiter_factory()())
        self._waiting.add(waiting)
        try:
            await wait_until(waiting.waiter, deadline)
        finally:
            self._waiting.discard(waiting)
        if waiting.error is not None:
            raise waiting.error

    def _wake_waiting(self) -> None:
        for waiting in self._waiting:
            waiting.waiter.wake()

    def stream_closed(self) -> None:
        """A call has ended: its channel may have another one that waits."""
        for channel in (*self._members, *self._leaving):
            channel.stream_closed()
        for waiter in self._draining:
            waiter.wake()

    async def wait_drained(self, channel: Channel) -> None:
        """Wait until the calls on a channel that was removed have ended.

        Those of a connection that broke do not count as ended: who waits watches for that, too.
        """
        waiter = waiter_factory()()
        self._draining.add(waiter)
        try:
            while channel.open_calls(self):
                await waiter.wait()
        finally:
            self._draining.discard(waiter)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be where tasks of calls live, until `close` is called.

        Cancellation:
            Closes this channel; those that it was made of are their owners'.
        """
        self._manager = waiter_factory()()
        self._home = Home()
        try:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks
                    self._running = True
                    task_status.started()
                    while not self._closed:
                        await self._manager.wait()
                    tasks.cancel_scope.cancel()
        finally:
            self._running = False
            self._tasks = None
            self.close()

    def close(self) -> None:
        """Take no more calls, and fail those that wait. The channels below are their owners'."""
        self._closed = True
        for channel in self.members:
            self.remove(channel)
        self._wake_waiting()
        self._wake_manager()


async def _connect_nowhere() -> ByteStream:
    msg = "a balanced channel does not connect: the channels below it do"
    raise RuntimeError(msg)
