"""How a call ended: status codes from trailers, from HTTP and from HTTP/2.

See gRPC over HTTP/2, "Responses" and "Errors", and the list of HTTP status codes beside it.

Sans-I/O: no awaits here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_grpc_message, encode_grpc_message

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.http2 import ErrorCode

from ._metadata import decode_binary, encode_binary

if TYPE_CHECKING:
    from grpclib.encoding.base import StatusDetailsCodecBase

    from pyvider_rpcplugin.http2 import Field

logger = event_logger(__name__)

DETAILS_KEY = "grpc-status-details-bin"

_FROM_HTTP = {
    "400": Status.INTERNAL,
    "401": Status.UNAUTHENTICATED,
    "403": Status.PERMISSION_DENIED,
    "404": Status.UNIMPLEMENTED,
    "429": Status.UNAVAILABLE,
    "502": Status.UNAVAILABLE,
    "503": Status.UNAVAILABLE,
    "504": Status.UNAVAILABLE,
}

_FROM_HTTP2: dict[int, Status] = {
    ErrorCode.NO_ERROR: Status.INTERNAL,
    ErrorCode.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCode.CANCEL: Status.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}

_STATUSES = {str(status.value): status for status in Status}


class CallStatus(msgspec.Struct, frozen=True):
    """A status with its message and details."""

    status: Status
    message: str | None = None
    details: Any = None

    def raise_for_error(self) -> None:
        """Raise GRPCError unless the status is OK."""
        if self.status is not Status.OK:
            raise GRPCError(self.status, self.message, self.details)


OK = CallStatus(Status.OK)


def status_of_error(error: BaseException | None) -> CallStatus:
    """The status of a call that was given up with this exception, or without one."""
    if isinstance(error, GRPCError):
        return CallStatus(error.status, error.message, error.details)
    if isinstance(error, Exception):
        return CallStatus(Status.UNKNOWN, f"{type(error).__name__}: {error}")
    return CallStatus(Status.CANCELLED, "the call was given up")


def status_from_http(code: str) -> CallStatus:
    """The status of a response that is none of gRPC's."""
    status = _FROM_HTTP.get(code, Status.UNKNOWN)
    return CallStatus(status, f"the server answered with HTTP status {code}")


def status_from_reset(code: int, reason: str) -> CallStatus:
    """The status of a stream that was reset."""
    return CallStatus(_FROM_HTTP2.get(code, Status.INTERNAL), reason)


def status_from_trailers(
    fields: tuple[Field, ...], codec: StatusDetailsCodecBase | None
) -> CallStatus:
    """The status that a trailer section, or a response of trailers only, says."""
    found = dict(fields)
    code = found.get("grpc-status")
    if code is None:
        return CallStatus(Status.UNKNOWN, "the response ended without a grpc-status")
    if code == "0":
        return OK
    message = found.get("grpc-message")
    if message is not None:
        # Percent-encoded by the specification; some peers send plain UTF-8, one octet a character.
        message = decode_grpc_message(message.encode("latin-1").decode("utf-8", "replace"))
    status = _STATUSES.get(code.lstrip("0"))
    if status is None:
        said = "" if message is None else f": {message}"
        return CallStatus(Status.UNKNOWN, f"the unknown grpc-status {code[:20]!r}{said}")
    return CallStatus(status, message, _details(found.get(DETAILS_KEY), status, message, codec))


def _details(
    value: str | None, status: Status, message: str | None, codec: StatusDetailsCodecBase | None
) -> Any:
    if value is None or codec is None:
        return None
    try:
        return codec.decode(status, message, decode_binary(value))
    except Exception as error:  # noqa: BLE001 - boundary: details are extra, the status counts
        logger.warning("rpc.status.details_invalid error=%r", error)
        return None


def _encode_message(message: str) -> str:
    # Lone surrogates (file names have them) cannot be said in UTF-8.
    encoded = encode_grpc_message(message.encode("utf-8", "replace").decode())
    # HTTP allows no spaces at either end of a field, and some peers end the connection for them.
    inner = encoded.strip(" ")
    if inner == encoded:
        return encoded
    before = len(encoded) - len(encoded.lstrip(" ")) if inner else 0
    return "%20" * before + inner + "%20" * (len(encoded) - before - len(inner))


def status_fields(status: CallStatus, codec: StatusDetailsCodecBase | None) -> list[Field]:
    """The header fields that say `status`."""
    fields: list[Field] = [("grpc-status", str(status.status.value))]
    if status.message is not None:
        fields.append(("grpc-message", _encode_message(status.message)))
    details = status.details
    if details is not None and codec is not None and not isinstance(details, bytes):
        details = codec.encode(status.status, status.message, details)
    if isinstance(details, bytes):
        fields.append((DETAILS_KEY, encode_binary(details)))
    return fields
