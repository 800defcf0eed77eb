"""The codecs of channels and servers that were given none; loaded when a call needs them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase


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


CONTENT_TYPE = "application/grpc"


def content_type(codec: CodecBase) -> str:
    """The content-type that names the codec's format."""
    subtype = codec.__content_subtype__
    # Some servers know only the short form for Protocol Buffers.
    return CONTENT_TYPE if subtype == "proto" else f"{CONTENT_TYPE}+{subtype}"


def subtype_of(value: str) -> str | None:
    """The message format that a content-type names; None if it is none of gRPC's."""
    base, _, _parameters = value.partition(";")
    base, _, subtype = base.strip().lower().partition("+")
    if base != CONTENT_TYPE:
        return None
    return subtype or "proto"
