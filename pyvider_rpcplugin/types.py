"""Names for annotations: what users of the package write beside their own types."""

from __future__ import annotations

import ssl
from typing import Any, Literal, TypeVar

from pyvider_rpcplugin.process.runners import AttachedRunner, Runner, RunnerFactory, RunSpec
from pyvider_rpcplugin.protocol.base import RPCPluginProtocol
from pyvider_rpcplugin.rpc import Channel
from pyvider_rpcplugin.transport import RPCPluginTransport

__all__ = [
    "TRANSPORT_TYPES",
    "AttachedRunner",
    "ConfigT",
    "GrpcChannelType",
    "GrpcCredentialsType",
    "HandlerT",
    "ProtocolT",
    "RpcConfigType",
    "RunSpec",
    "Runner",
    "RunnerFactory",
    "TransportT",
]

HandlerT = TypeVar("HandlerT")
"""A handler, of whatever class."""

ProtocolT = TypeVar("ProtocolT", bound=RPCPluginProtocol)
"""A protocol's class."""

TransportT = TypeVar("TransportT", bound=RPCPluginTransport)
"""A transport's class."""

ConfigT = dict[str, Any]
"""What `config=` takes."""

RpcConfigType = dict[str, Any]
"""What `config=` takes: the other documented name of `ConfigT`."""

TRANSPORT_TYPES = Literal["unix", "tcp"]
"""What `transport=` takes."""

GrpcChannelType = Channel
"""The class of `client.grpc_channel`."""

GrpcCredentialsType = ssl.SSLContext
"""The class of what `tls=` takes, which stands for grpcio's credentials."""
