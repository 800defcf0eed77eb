"""Large messages are compressed and decompressed in threads, so that all other calls go on meanwhile.

zlib lets go of the interpreter's lock as it works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio import to_thread
from anyio.lowlevel import RunVar

from pyvider_rpcplugin._patience import cores

from ._compression import unpacking_error
from ._messages import message_prefix
from .errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._compression import MessageEncoding
    from ._metadata import Deadline

    Check = Callable[[], object]

T = TypeVar("T")

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("message packing")


class _NotWantedError(Exception):
    """Nobody waits any more for what a thread makes."""


def _threads() -> anyio.CapacityLimiter:
    """How many messages are worked at at a time: as many as there are cores for."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(cores())
        _limiter.set(limiter)
    return limiter


async def pack(
    encoding: MessageEncoding, data: bytes, deadline: Deadline | None
) -> tuple[bytes, bytes]:
    """Compress a message; return its prefix and its octets.

    Raises:
        DeadlineExceeded: The deadline passed first.

    Cancellation:
        Safe. The thread ends a few milliseconds later.
    """

    def work(check: Check) -> bytes:
        return encoding.compress(data, check)

    packed = await _in_thread(work, deadline)
    return message_prefix(len(packed), compressed=True), packed


async def unpack(
    encoding: MessageEncoding,
    data: bytes,
    limit: int,
    deadline: Deadline | None,
    turn: anyio.Lock,
) -> bytes:
    """Decompress a message.

    Args:
        encoding: What it is compressed with.
        data: Its octets.
        limit: How many there may be afterwards; -1: any number.
        deadline: By when.
        turn: That of its connection: no peer keeps the threads from the others.

    Raises:
        GRPCError: It is malformed, or too large.
        DeadlineExceeded: The deadline passed first.

    Cancellation:
        Safe. The thread ends a few milliseconds later.
    """

    def work(check: Check) -> bytes:
        return encoding.decompress(data, limit, check)

    try:
        return await _in_thread(work, deadline, turn)
    except (OverflowError, ValueError) as error:
        raise unpacking_error(error) from None


async def _in_thread(
    work: Callable[[Check], T], deadline: Deadline | None, turn: anyio.Lock | None = None
) -> T:
    wanted = True

    def check() -> None:
        if not wanted:
            raise _NotWantedError

    async def run() -> T:
        return await to_thread.run_sync(work, check, limiter=_threads(), abandon_on_cancel=True)

    try:
        with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline.at):
            if turn is None:
                return await run()
            async with turn:
                return await run()
    finally:
        wanted = False
    raise DeadlineExceeded
