"""Metadata and deadlines as header fields (gRPC over HTTP/2, "Requests").

grpclib's own functions are used where they are right. Ours differ: empty and comma-joined binary
values, empty text values, timeouts of at most eight digits, and time by the running loop's clock.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import anyio
from grpclib.metadata import Deadline as GrpclibDeadline
from multidict import MultiDict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpclib.metadata import _Metadata as Metadata

    from pyvider_rpcplugin.http2 import Field

MetadataValue = str | bytes
MetadataLike = Mapping[str, MetadataValue] | Collection[tuple[str, MetadataValue]]

_KEY = re.compile(r"[0-9a-z_.\-]+")
_TEXT = re.compile(r"[ -~]*")
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_RESERVED = frozenset(("te", "content-type", "user-agent"))
# HTTP/2 refuses them, or would read them as its own.
_UNSENDABLE = _RESERVED | {
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
}
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_UNITS = (("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("S", 1.0), ("M", 60.0), ("H", 3600.0))
_LARGEST_TIMEOUT = 99_999_999


class Deadline(GrpclibDeadline):
    """A point in time by which a call must be complete, on the running loop's clock."""

    @classmethod
    def from_timeout(cls, timeout: float) -> Deadline:
        """The deadline that is `timeout` seconds from now."""
        return cls(_timestamp=anyio.current_time() + timeout)

    @classmethod
    def of(cls, deadline: GrpclibDeadline) -> Deadline:
        """`deadline` on the running loop's clock: grpclib's own reads another one."""
        if isinstance(deadline, cls):
            return deadline
        return cls.from_timeout(deadline.time_remaining())

    @property
    def at(self) -> float:
        """The deadline as `anyio.current_time()` counts."""
        return self._timestamp

    def time_remaining(self) -> float:
        """Seconds that are left, 0 when it has passed."""
        return max(0.0, self._timestamp - anyio.current_time())


current_deadline: ContextVar[Deadline | None] = ContextVar("current_deadline", default=None)
"""The deadline of the call that is being handled; calls made meanwhile inherit it."""


def effective_deadline(timeout: float | None, deadline: GrpclibDeadline | None) -> Deadline | None:
    """The earliest of a timeout, a deadline, and that of the call being handled."""
    inherited = current_deadline.get()
    if timeout is None and deadline is None:
        return inherited
    candidates = [] if inherited is None else [inherited]
    if timeout is not None:
        candidates.append(Deadline.from_timeout(timeout))
    if deadline is not None:
        candidates.append(Deadline.of(deadline))
    return min(candidates)


def encode_timeout(seconds: float) -> str:
    """The value of grpc-timeout: as exact as eight digits allow, never longer than `seconds`."""
    for unit, size in _UNITS:
        amount = seconds / size
        if amount <= _LARGEST_TIMEOUT:
            return f"{int(amount)}{unit}"
    return f"{_LARGEST_TIMEOUT}H"


def decode_timeout(value: str) -> float:
    """Seconds of a grpc-timeout value.

    Raises:
        ValueError: It is malformed.
    """
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        msg = f"invalid grpc-timeout: {value[:40]!r}"
        raise ValueError(msg)
    return int(match[1]) * _SECONDS[match[2]]


def encode_metadata(metadata: MetadataLike) -> list[Field]:
    """Metadata as header fields.

    Raises:
        ValueError: A key or value cannot be sent.
        TypeError: A value of the wrong type: bytes belong to keys that end in `-bin`, text to
            all others.
    """
    pairs: Iterable[Any] = metadata.items() if isinstance(metadata, Mapping) else metadata
    fields: list[Field] = []
    for key, value in pairs:
        if key in _UNSENDABLE or key.startswith("grpc-") or not _KEY.fullmatch(key):
            msg = f"invalid metadata key: {key!r} (lower case, and not one that gRPC uses itself)"
            raise ValueError(msg)
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                msg = f"the value of {key!r} must be bytes, not {type(value).__name__}"
                raise TypeError(msg)
            fields.append((key, encode_binary(value)))
        else:
            if not isinstance(value, str):
                msg = f"the value of {key!r} must be str, not {type(value).__name__}"
                raise TypeError(msg)
            if not _TEXT.fullmatch(value):
                msg = f"the value of {key!r} has characters beyond printable ASCII"
                raise ValueError(msg)
            fields.append((key, value.strip(" ")))
    return fields


PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""When a call that was refused may be tried again: a trailer that is for callers, too."""


def decode_metadata(fields: Iterable[Field]) -> Metadata:
    """The metadata among header fields, in order; a binary value that is malformed is left out."""
    metadata = new_metadata()
    for key, value in fields:
        if key in _RESERVED or (key.startswith("grpc-") and key != PUSHBACK_KEY):
            continue
        if key.endswith("-bin"):
            # A proxy may have joined several fields into one.
            for part in value.split(","):
                try:
                    metadata.add(key, decode_binary(part))
                except ValueError:
                    continue
        else:
            metadata.add(key, value)
    return metadata


def new_metadata(values: MetadataLike = ()) -> Metadata:
    """Metadata of its own, in the type that grpclib gives it."""
    return cast("Metadata", MultiDict(values))


UNLIMITED = 2**32 - 1
# What a header section holds besides metadata is far below that.
_OTHER_FIELDS = 1024
_MOST_FIELDS = 480


def header_list_size(fields: Collection[Field]) -> int:
    """The size of a header section with `fields`, as peers count it (RFC 9113, section 6.5.2).

    Beyond every limit if there are so many fields that a peer like ours would not take them.
    """
    if len(fields) > _MOST_FIELDS:
        return UNLIMITED + 1
    return _OTHER_FIELDS + sum([len(name) + len(value) + 32 for name, value in fields])


def encode_binary(value: bytes) -> str:
    """Base64 without padding."""
    return b64encode(value).rstrip(b"=").decode()


def decode_binary(value: str) -> bytes:
    """Base64 with or without padding.

    Raises:
        ValueError: It is malformed.
    """
    text = value.strip(" ").rstrip("=")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        msg = f"invalid binary metadata: {error}"
        raise ValueError(msg) from None
