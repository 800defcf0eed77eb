"""From what a handshake line says to a transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport.tcp import TCPSocketTransport, parse_address
from pyvider_rpcplugin.transport.unix import UnixSocketTransport

if TYPE_CHECKING:
    from pyvider_rpcplugin.transport.base import RPCPluginTransport


def transport_for(network: str, address: str) -> RPCPluginTransport:
    """Make the transport that connects to an address.

    Args:
        network: "unix" or "tcp"; in tests, "memory".
        address: A path, or host:port ([host]:port for IPv6).

    Raises:
        TransportError: There is no such network, or it has no such addresses.
    """
    match network:
        case "unix":
            return UnixSocketTransport(address)
        case "tcp":
            host, port = parse_address(address)
            return TCPSocketTransport(host, port)
        case "memory":
            from pyvider_rpcplugin.transport.memory import (  # noqa: PLC0415 - for tests alone
                MemoryTransport,
            )

            return MemoryTransport(address)
        case _:
            message = f"unknown kind of network: {network!r}"
            raise TransportError(message, hint='known are "unix" and "tcp"')
