"""What happens on a session, as its owner is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ._session import YamuxStream


class StreamOpened(NamedTuple):
    """The peer wants a stream: `accept` or `reset` it."""

    stream: YamuxStream


class StreamAccepted(NamedTuple):
    """The peer has accepted a stream of ours."""

    stream: YamuxStream


class DataReceived(NamedTuple):
    """Content came; say `consumed` once it is used, so that the peer may send more."""

    stream: YamuxStream
    data: bytes


class WindowOpened(NamedTuple):
    """More may be sent on a stream."""

    stream: YamuxStream


class StreamEnded(NamedTuple):
    """The peer will send nothing more on a stream."""

    stream: YamuxStream


class StreamReset(NamedTuple):
    """The peer has given a stream up: nothing can be sent or received on it any more."""

    stream: YamuxStream


class PingAcknowledged(NamedTuple):
    """The peer has answered a ping."""

    value: int


class GoAwayReceived(NamedTuple):
    """The peer accepts no more streams; those that are there go on."""


class SessionFaulted(NamedTuple):
    """The session is over: send what `take_output` gives, and close the connection."""

    reason: str


Event = (
    StreamOpened
    | StreamAccepted
    | DataReceived
    | WindowOpened
    | StreamEnded
    | StreamReset
    | PingAcknowledged
    | GoAwayReceived
    | SessionFaulted
)
"""What a session says to whoever owns it."""
