"""A channel whose calls go to one of several others, each to whichever has the least to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._tasks import waiter_factory

from ._call import wait_until
from ._channel import Channel
from .errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from anyio.abc import ByteStream
    from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase

    from pyvider_rpcplugin._tasks import Waiter

    from ._connection import RPCConnection
    from ._metadata import Deadline
    from ._options import RPCOptions


class BalancedChannel(Channel):
    """Calls to several endpoints that offer the same, and that come and go.

    What it is made of are channels that others run and close. A call goes to the one with the
    fewest open calls. When there is none, calls wait until one is added, within their deadlines.
    Nothing that has been sent is ever sent again.

    Args:
        authority: The name that requests carry.
        scheme: As of all channels that are added.
        codec: How messages are written; Protocol Buffers by default.
        status_details_codec: How the details of an error are.
        options: As of all channels that are added.
        on_wanted: Called, once for each call, when a call finds no channel to go to.
    """

    def __init__(
        self,
        *,
        authority: str = "localhost",
        scheme: str = "http",
        codec: CodecBase | None = None,
        status_details_codec: StatusDetailsCodecBase | None = None,
        options: RPCOptions | None = None,
        on_wanted: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            _connect_nowhere,
            authority=authority,
            scheme=scheme,
            codec=codec,
            status_details_codec=status_details_codec,
            options=options,
        )
        self._on_wanted = on_wanted
        self._members: list[Channel] = []
        self._leaving: list[Channel] = []
        self._waiting: set[Waiter] = set()
        self._refusal: Callable[[], Exception] | None = None

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
        self._refusal = None
        self._members.append(channel)
        self._wake_waiting()

    def remove(self, channel: Channel) -> None:
        """Send no more calls to a channel; those that run there may finish. Repeating is fine."""
        if channel in self._members:
            self._members.remove(channel)
            # Its calls report their ends to this channel.
            self._leaving = [old for old in self._leaving if old.open_calls(self)]
            self._leaving.append(channel)

    def refuse(self, error: Callable[[], Exception] | None) -> None:
        """Fail calls that find no channel, those that wait included, until one is added.

        Args:
            error: Makes the exception of each call; None: let calls wait.
        """
        self._refusal = error
        self._wake_waiting()

    def calls(self) -> int:
        """How many calls are open or wait to begin."""
        open_ = sum(channel.open_calls(self) for channel in (*self._members, *self._leaving))
        return open_ + len(self._waiting)

    def connection_now(self) -> RPCConnection | None:
        """The connection that is best for a call, if one can begin at once."""
        members = self._members
        if len(members) == 1:
            return members[0].connection_now()
        found = [ready for member in members if (ready := member.connection_now()) is not None]
        return min(found, key=_load) if found else None

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
                    return await member.wait_connection(deadline)
                except ConnectionLost:
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
            tried.clear()

    def _least_busy(self, tried: list[Channel]) -> Channel | None:
        left = [member for member in self._members if member.alive and member not in tried]
        return min(left, key=lambda member: member.open_calls(None), default=None)

    @staticmethod
    def _raise_refusal(refusal: Callable[[], Exception]) -> NoReturn:
        raise refusal()

    async def _wait_for_member(self, deadline: Deadline | None) -> None:
        waiter = waiter_factory()()
        self._waiting.add(waiter)
        try:
            await wait_until(waiter, deadline)
        finally:
            self._waiting.discard(waiter)

    def _wake_waiting(self) -> None:
        for waiter in self._waiting:
            waiter.wake()

    def stream_closed(self) -> None:
        """A call has ended: its channel may have another one that waits."""
        for channel in (*self._members, *self._leaving):
            channel.stream_closed()

    def close(self) -> None:
        """Take no more calls, and fail those that wait. The channels below are their owners'."""
        self._closed = True
        for channel in self.members:
            self.remove(channel)
        self._wake_waiting()


def _load(connection: RPCConnection) -> int:
    return len(connection.h2.streams)


async def _connect_nowhere() -> ByteStream:
    msg = "a balanced channel does not connect: the channels below it do"
    raise RuntimeError(msg)
