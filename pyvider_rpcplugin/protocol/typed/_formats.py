"""The formats of messages that services of this kind have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin.rpc import RawCodec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpclib.encoding.base import CodecBase

MSGPACK = RawCodec("msgpack")
FORMATS: Mapping[str, CodecBase] = {"msgpack": MSGPACK, "proto": RawCodec("proto")}
DESCRIBE = "/pyvider.rpcplugin.Services/Describe"
"""The method that tells of a server's typed services."""
