"""Calls that may be made again because it does no harm: they are marked idempotent by their caller."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ._client_stream import ClientStream
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from ._channel import Channel
    from ._metadata import Deadline

SendT = TypeVar("SendT")
RecvT = TypeVar("RecvT")

# How often a call is made, at most; and the seconds before another attempt, each of them between
# half and all of it.
MOST_ATTEMPTS = 5
_FIRST_PAUSE, _PAUSE_GROWTH, _LONGEST_PAUSE = 0.05, 2.0, 1.0


class Attempts:
    """Counts the attempts at one call, and says how long to wait before the next."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made = 1

    def next_pause(
        self, channel: Channel, status: Status, deadline: Deadline | None
    ) -> float | None:
        """Count another attempt; None: there is to be none.

        Args:
            channel: What the call goes through.
            status: How the last attempt has ended.
            deadline: By when the call must be complete.
        """
        if status is not Status.UNAVAILABLE or not channel.alive or self._made >= MOST_ATTEMPTS:
            return None
        longest = min(_FIRST_PAUSE * _PAUSE_GROWTH ** (self._made - 1), _LONGEST_PAUSE)
        pause = longest * random.uniform(0.5, 1)  # noqa: S311 - no secret
        if deadline is not None and deadline.time_remaining() <= pause:
            return None
        self._made += 1
        return pause


class RetryingStream(ClientStream[SendT, RecvT]):
    """A call with one request that is made again, as long as no reply has come.

    It is if its connection was lost, or none could be made, or the server says UNAVAILABLE.
    """

    __slots__ = ("_attempts",)

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._attempts = Attempts()

    async def _begin(self, *, end: bool = False) -> None:
        self._check_unsent()
        channel = self._owner
        if channel.interceptors or channel.events.active:
            await self._announce()
        while True:
            try:
                connection = channel.connection_now() or await channel.wait_connection(self._due)
            except GRPCError as error:
                await self._pause_after(error)
                continue
            self._check_unsent()
            self._open(connection, end=end, encoding=channel.encoding)
            return

    async def _pause_after(self, error: GRPCError) -> None:
        """Wait before another attempt.

        Raises:
            GRPCError: `error`, if there is to be none.
        """
        pause = None
        if not isinstance(error, DeadlineExceeded):
            pause = self._attempts.next_pause(self._owner, error.status, self._due)
        if pause is None:
            raise error
        await anyio.sleep(pause)

    async def send_message(self, message: SendT, *, end: bool = False) -> None:
        try:
            await super().send_message(message, end=end)
        except GRPCError as error:
            if self._messages is None:  # It was not even begun.
                raise
            await self._begin_again(error)
            self._message_sent = self._ended = True
            self._end_said = end

    async def _begin_again(self, error: GRPCError) -> None:
        while True:
            if self._request is None:
                raise error
            await self._pause_after(error)
            try:
                await self._attempt(self._request)
            except GRPCError as failure:
                error = failure
            else:
                return

    async def recv_message(self) -> RecvT | None:
        while True:
            try:
                message = await super().recv_message()
            except GRPCError as error:
                if self._message_received:
                    raise
                await self._begin_again(error)
                continue
            if message is None and not self._message_received:
                status = self._final_status()
                if status.status is Status.UNAVAILABLE:
                    await self._begin_again(self._error_of(status))
                    continue
            return message
