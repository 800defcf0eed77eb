"""The names of grpcio's that its generated code, and what is written for it, expects of us.

Where a program has loaded grpcio, they are grpcio's own: its users catch `grpc.aio.AioRpcError` and
compare with `grpc.aio.EOF`. We never load it. Where nobody has, there are classes of the same form.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
from grpclib.const import Status
from grpclib.encoding.base import CodecBase

from pyvider_rpcplugin.exception import ProtocolError

from ._metadata import decode_binary, decode_metadata, new_metadata
from ._status import DETAILS_KEY, CallStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from grpclib.metadata import _Metadata as Metadata

    from pyvider_rpcplugin.http2 import Field

COMPRESSIONS: dict[int, str | None] = {0: None, 1: "deflate", 2: "gzip"}


class AioRpcError(Exception):
    """A call that ended with another status than OK: what `grpc.aio.AioRpcError` is."""

    def __init__(
        self,
        code: Status,
        initial_metadata: Any = None,
        trailing_metadata: Any = None,
        details: str | None = None,
        debug_error_string: str | None = None,
    ) -> None:
        super().__init__(code, initial_metadata, trailing_metadata, details, debug_error_string)

    def code(self) -> Status:
        """The status."""
        code: Status = self.args[0]
        return code

    def initial_metadata(self) -> Any:
        """What came with the response's headers."""
        return self.args[1]

    def trailing_metadata(self) -> Any:
        """What came at the end."""
        return self.args[2]

    def details(self) -> str | None:
        """The status's message."""
        details: str | None = self.args[3]
        return details

    def debug_error_string(self) -> str | None:
        """Where it comes from."""
        origin: str | None = self.args[4]
        return origin

    def __str__(self) -> str:
        return f"{self.code().name}: {self.details()}"


class AbortError(Exception):
    """The handler has ended its call with a status."""


class UsageError(Exception):
    """A method was called at the wrong time."""


class _EndOfStream:
    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<EOF>"


class _Ours:
    """The names where grpcio is not loaded."""

    AioRpcError = AioRpcError
    AbortError = AbortError
    UsageError = UsageError
    EOF = _EndOfStream()

    @staticmethod
    def Metadata(*pairs: tuple[str, str | bytes]) -> Metadata:  # noqa: N802 - grpcio's name
        """Metadata in grpclib's type."""
        return new_metadata(pairs)


def aio() -> Any:
    """`grpc.aio` where it is loaded, else what stands for it."""
    return sys.modules.get("grpc.aio") or _Ours


_introduced: set[type] = set()


def introduce(*kinds: type) -> None:
    """Let `isinstance` take our classes for grpcio's abstract ones of the same names."""
    grpcio = sys.modules.get("grpc.aio")
    if grpcio is None:
        return
    for kind in kinds:
        if kind not in _introduced:
            _introduced.add(kind)
            getattr(grpcio, kind.__name__).register(kind)


_codes: dict[Status, Any] = {}


def code_of(status: Status) -> Any:
    """A status as `grpc.StatusCode`; where grpcio is not loaded, as it is."""
    if not _codes:
        grpc = sys.modules.get("grpc")
        if grpc is None:
            return status
        _codes.update((Status(code.value[0]), code) for code in grpc.StatusCode)
    return _codes[status]


def status_of(code: Any) -> Status:
    """The status that a `grpc.StatusCode`, a number or a `Status` means; UNKNOWN if none."""
    value = getattr(code, "value", code)
    if isinstance(value, tuple):
        value = value[0]
    try:
        return Status(value)
    except ValueError:
        return Status.UNKNOWN


def encoding_of(compression: Any) -> str | None:
    """The name of the encoding that a `grpc.Compression` means."""
    return COMPRESSIONS.get(int(compression))


def plain_metadata(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Metadata as grpcio's users give it, in the types that we send.

    Raises:
        TypeError: It is none.
    """
    if isinstance(metadata, dict) or not hasattr(metadata, "__iter__"):
        msg = f"metadata must be pairs of a key and a value, not {type(metadata).__name__}"
        raise TypeError(msg)
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in metadata:
        if key.endswith("-bin"):
            pairs.append((key, value.encode() if isinstance(value, str) else value))
        else:
            pairs.append((key, value.decode("ascii") if isinstance(value, bytes) else value))
    return pairs


def split_details(
    pairs: Iterable[tuple[str, str | bytes]],
) -> tuple[list[tuple[str, str | bytes]], Any]:
    """Part trailing metadata from a status's details, which grpcio's users send among them."""
    rest: list[tuple[str, str | bytes]] = []
    details: Any = None
    for key, value in pairs:
        if key == DETAILS_KEY:
            details = value
        else:
            rest.append((key, value))
    return rest, details


def received_metadata(fields: Iterable[Field]) -> Any:
    """The metadata among header fields, as `grpc.aio.Metadata`; a status's details are in it."""
    return aio().Metadata(*received_pairs(fields))


def received_pairs(fields: Iterable[Field]) -> list[tuple[str, str | bytes]]:
    """The same as pairs of a key and a value."""
    fields = tuple(fields)
    pairs: list[tuple[str, str | bytes]] = list(decode_metadata(fields).items())
    for key, value in fields:
        if key == DETAILS_KEY:
            try:
                pairs.append((key, decode_binary(value)))
            except ValueError:
                continue
    return pairs


def rpc_error(
    status: CallStatus, initial_metadata: Any, trailing_metadata: Any, origin: str
) -> Exception:
    """What is raised for a status that is not OK."""
    error: Exception = aio().AioRpcError(
        code_of(status.status),
        initial_metadata,
        trailing_metadata,
        details=status.message or "",
        debug_error_string=origin,
    )
    return error


def invalid_state(message: str) -> Exception:
    """What is raised for a call that is over: `asyncio.InvalidStateError` where there is such."""
    asyncio = sys.modules.get("asyncio")
    kind: Callable[[str], Exception] = (
        RuntimeError if asyncio is None else asyncio.InvalidStateError
    )
    return kind(message)


def raise_cancelled(otherwise: Exception) -> NoReturn:
    """Raise what a cancelled call raises: on asyncio its CancelledError, on trio `otherwise`.

    Nobody but trio can raise its own.
    """
    cancelled = anyio.get_cancelled_exc_class()
    if cancelled.__module__.startswith("asyncio"):
        raise cancelled
    raise otherwise


def refuse_credentials(credentials: Any) -> None:
    """See that a call was given no credentials of its own.

    Raises:
        ProtocolError: It was.
    """
    if credentials is not None:
        msg = "a call's own credentials are not supported"
        raise ProtocolError(msg, hint="send what they would add as metadata=")


class FunctionCodec(CodecBase):
    """A codec out of the two functions that grpcio's generated code gives.

    Args:
        encode: Makes octets of a message; None: it is octets.
        decode: Makes a message of octets; None: it stays octets.
    """

    __content_subtype__ = "proto"

    def __init__(
        self, encode: Callable[[Any], bytes] | None, decode: Callable[[bytes], Any] | None
    ) -> None:
        self._encode = encode
        self._decode = decode

    def encode(self, message: Any, _message_type: Any) -> bytes:
        """A message's octets."""
        if self._encode is None:
            return bytes(message)
        return self._encode(message)

    def decode(self, data: bytes, _message_type: Any) -> Any:
        """The message of these octets."""
        return data if self._decode is None else self._decode(data)
