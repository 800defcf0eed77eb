"""The codecs of channels and servers that were given none; loaded when a call needs them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from grpclib.const import Handler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
else:
    CodecBase = object


def default_codec() -> CodecBase:
    """Protocol Buffers, by grpclib."""
    from grpclib.encoding.proto import ProtoCodec  # noqa: PLC0415 - loads only where used

    return ProtoCodec()


@cache
def default_details_codec() -> StatusDetailsCodecBase | None:
    """google.rpc.Status, where googleapis-common-protos is installed."""
    from importlib.util import find_spec  # noqa: PLC0415

    try:
        if find_spec("google.rpc.status_pb2") is None:
            return None
    except ModuleNotFoundError:
        return None
    from grpclib.encoding.proto import ProtoStatusDetailsCodec  # noqa: PLC0415

    return ProtoStatusDetailsCodec()


class RawCodec(CodecBase):
    """Hands octets through: whoever calls or serves with it writes the messages.

    Args:
        subtype: The message format that the content-type names.
    """

    def __init__(self, subtype: str) -> None:
        self.__content_subtype__: str = subtype

    def encode(self, message: Any, message_type: Any) -> bytes:
        """The message, which is octets already."""
        return message  # type: ignore[no-any-return]

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The octets."""
        return data


class CodecHandler(Handler):
    """A handler whose messages have formats of their own.

    Attributes:
        codecs: How they are written, by the formats that a request's content-type can name. The
            answer has the format of the request.
    """

    codecs: Mapping[str, CodecBase]

    @classmethod
    def make(
        cls, func: Any, cardinality: Any, codecs: Mapping[str, CodecBase], *, kind: Any = bytes
    ) -> Self:
        """Make one; `kind` is what the codecs are told of both messages' types."""
        handler = cls(func, cardinality, kind, kind)
        handler.codecs = codecs
        return handler


CONTENT_TYPE = "application/grpc"


def content_type(codec: CodecBase) -> str:
    """The content-type that names the codec's format."""
    return content_type_of(codec.__content_subtype__)


def content_type_of(subtype: str) -> str:
    """The content-type that names a format."""
    # Some servers know only the short form for Protocol Buffers.
    return CONTENT_TYPE if subtype == "proto" else f"{CONTENT_TYPE}+{subtype}"


def subtype_of(value: str) -> str | None:
    """The message format that a content-type names; None if it is none of gRPC's."""
    base, _, _parameters = value.partition(";")
    base, _, subtype = base.strip().lower().partition("+")
    if base != CONTENT_TYPE:
        return None
    return subtype or "proto"
