"""What a request's header section says (gRPC over HTTP/2, "Requests").

Sans-I/O: no awaits here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from ._call import encoding_named
from ._codecs import subtype_of
from ._compression import accepted
from ._metadata import decode_metadata, decode_timeout, new_metadata
from ._status import CallStatus

if TYPE_CHECKING:
    from grpclib.metadata import _Metadata as Metadata

    from pyvider_rpcplugin.http2 import Field, HeaderBlock

    from ._compression import MessageEncoding


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is answered without a handler."""

    status: CallStatus
    http_status: str = "200"
    fields: tuple[Field, ...] = ()


class RequestHead:
    """A request's header section, read once and kept with the block.

    Attributes:
        path: The method's full path.
        refusal: Why it cannot be handled; None if it can.
        subtype: The message format.
        timeout: Seconds the client gives it; None: any.
        encoding: What its messages are compressed with.
        accepted_encodings: What the client takes.
        user_agent: How the client calls itself.
    """

    __slots__ = (
        "_fields",
        "_has_metadata",
        "accepted_encodings",
        "encoding",
        "path",
        "refusal",
        "subtype",
        "timeout",
        "user_agent",
    )

    def __init__(self, block: HeaderBlock) -> None:
        fields = dict(block.fields)
        self._fields = block.fields
        self.path: str = block.pseudo.get(":path", "")
        self.user_agent: str | None = fields.get("user-agent")
        self.accepted_encodings: frozenset[str] = accepted(
            value for name, value in block.fields if name == "grpc-accept-encoding"
        )
        self._has_metadata = bool(decode_metadata(block.fields))
        self.timeout: float | None = None
        self.encoding: MessageEncoding | None = None
        self.subtype: str | None = subtype_of(fields.get("content-type", ""))
        self.refusal: Refusal | None = self._check(block.pseudo[":method"], fields)

    def _check(self, method: str, fields: dict[str, str]) -> Refusal | None:
        if method != "POST":
            return Refusal(CallStatus(Status.UNIMPLEMENTED, "gRPC requests are POST"), "405")
        if self.subtype is None:
            said = fields.get("content-type", "none")[:100]
            message = f"the request is none of gRPC's: its content-type is {said}"
            return Refusal(CallStatus(Status.UNKNOWN, message), "415")
        timeout = fields.get("grpc-timeout")
        try:
            if timeout is not None:
                self.timeout = decode_timeout(timeout)
            self.encoding = encoding_named(fields.get("grpc-encoding"))
        except ValueError as error:
            return Refusal(CallStatus(Status.INTERNAL, str(error)))
        except GRPCError as error:
            return Refusal(CallStatus(error.status, error.message))
        return None

    def metadata(self) -> Metadata:
        """The metadata, the caller's own copy."""
        return decode_metadata(self._fields) if self._has_metadata else new_metadata()


def request_head(block: HeaderBlock) -> RequestHead:
    """What `block` says."""
    parsed = block.parsed
    if not isinstance(parsed, RequestHead):
        block.parsed = parsed = RequestHead(block)
    return parsed
