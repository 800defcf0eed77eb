"""An independent HTTP/2 implementation (`h2`) at the other end of our connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.settings

from pyvider_rpcplugin.http2 import (
    DataReceived,
    Event,
    H2Connection,
    HeaderEncoder,
    Limits,
    LocalSettings,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hyperframe.frame import Frame

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo.Echo/Unary"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]

_encoder = HeaderEncoder()
REQUEST_BLOCK = _encoder.encode(REQUEST)
RESPONSE_BLOCK = _encoder.encode(RESPONSE)
TRAILERS_BLOCK = _encoder.encode(TRAILERS)


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block of ours."""
    return _encoder.encode(fields)


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    """`data` in parts of `step` octets; whole if `step` is 0."""
    if not step:
        yield data
        return
    for start in range(0, len(data), step):
        yield data[start : start + step]


class Link:
    """Our connection and an `h2` one, with nothing between them but bytes.

    Args:
        client_side: Whether ours is the client.
        step: How many octets are handed over at once; 0: all that there are.
        settings: What ours announces.
        limits: What ours bounds.
        peer_settings: What the peer announces, by the names of `h2`.
        opened: Whether to exchange the prefaces.
    """

    def __init__(
        self,
        *,
        client_side: bool,
        step: int = 0,
        settings: LocalSettings | None = None,
        limits: Limits | None = None,
        peer_settings: dict[h2.settings.SettingCodes, int] | None = None,
        opened: bool = True,
    ) -> None:
        self.step = step
        self.ours = H2Connection(client_side=client_side, settings=settings, limits=limits)
        self.peer = h2_connection(client_side=not client_side)
        if peer_settings:
            self.peer.local_settings = h2.settings.Settings(
                client=not client_side, initial_values=peer_settings
            )
        self.ours.initiate()
        self.peer.initiate_connection()
        if opened:
            self.settle()

    def to_ours(self) -> list[Event]:
        """Deliver what the peer has to send; what it means to us."""
        return self.feed(self.peer.data_to_send())

    def feed(self, *items: bytes | Frame) -> list[Event]:
        """Deliver bytes and frames to ours; what they mean to us."""
        data = b"".join(i if isinstance(i, bytes) else i.serialize() for i in items)
        return joined(e for part in pieces(data, self.step) for e in self.ours.receive_data(part))

    def to_peer(self) -> list[Any]:
        """Deliver what we have to send; what it means to the peer."""
        data = self.ours.take_output()
        return [e for part in pieces(data, self.step) for e in self.peer.receive_data(part)]

    def settle(self) -> tuple[list[Event], list[Any]]:
        """Deliver until nobody has anything to say; what it meant to us and to the peer."""
        ours: list[Event] = []
        peers: list[Any] = []
        while True:
            peers += self.to_peer()
            data = self.peer.data_to_send()
            if not data:
                return ours, peers
            ours += self.feed(data)


def h2_connection(*, client_side: bool) -> h2.connection.H2Connection:
    """A connection of `h2` that lets us send what we like."""
    return h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=client_side,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )


def kinds(events: Iterable[object]) -> list[str]:
    """The names of the events' classes."""
    return [type(event).__name__ for event in events]


def only(events: Iterable[object], kind: type[Any]) -> Any:
    """The one event of `kind`."""
    (event,) = [e for e in events if isinstance(e, kind)]
    return event


def joined(events: Iterable[Event]) -> list[Event]:
    """`events` with adjacent content of one stream as one event, however it was cut."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and last.stream is event.stream
        ):
            result[-1] = DataReceived(
                event.stream, bytes(last.data) + bytes(event.data), end_stream=event.end_stream
            )
        else:
            result.append(event)
    return result
