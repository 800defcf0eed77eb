"""Brokers for the two sides of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._settings import rpc_options
from ._ways import SocketWays
from .broker import Broker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto import Credentials
    from pyvider_rpcplugin.exception import PluginExit
    from pyvider_rpcplugin.handshake import HandshakeRecord
    from pyvider_rpcplugin.process import AttachedRunner

    from ._shared import SharedWays
    from ._ways import Ways

_LOOPBACK = "127.0.0.1"


def plugin_broker(
    network: str,
    address: str,
    settings: Settings,
    credentials: Credentials | None,
    shared: SharedWays | None = None,
) -> Broker:
    """Make a plugin's broker.

    Args:
        network: What the main listener is.
        address: Where it listens: with tcp, the others listen on the same host.
        settings: The plugin's.
        credentials: What the main listener accepts with.
        shared: The one connection, where all goes over one.
    """
    if shared is not None:
        return _make(shared, "host", settings, None)
    host = _host_of(address) if network == "tcp" else _LOOPBACK
    ways = SocketWays(network, host, settings, credentials, is_host=False)
    return _make(ways, "host", settings, None)


def host_broker(
    record: HandshakeRecord,
    settings: Settings,
    credentials: Credentials | None,
    on_lost: Callable[[], Awaitable[PluginExit | None]],
    shared: SharedWays | None = None,
    runner: AttachedRunner | None = None,
) -> Broker:
    """Make a host's broker.

    Args:
        record: How the plugin is reached.
        settings: The host's, with the folder that it made for this plugin.
        credentials: What it connects to the plugin with.
        on_lost: Says how the plugin has ended.
        shared: The one connection, where all goes over one.
        runner: What the plugin runs in: it translates addresses.
    """
    if shared is not None:
        return _make(shared, "plugin", settings, on_lost)
    # A plugin that listens on IPv6 may have nothing else.
    is_ipv6 = record.network == "tcp" and ":" in _host_of(record.address)
    host = "::1" if is_ipv6 else _LOOPBACK
    ways = SocketWays(record.network, host, settings, credentials, is_host=True, runner=runner)
    return _make(ways, "plugin", settings, on_lost)


def _make(
    ways: Ways,
    peer: str,
    settings: Settings,
    on_lost: Callable[[], Awaitable[PluginExit | None]] | None,
) -> Broker:
    return Broker(
        ways,
        peer=peer,
        options=rpc_options(settings),
        grace=settings.grpc_grace_period,
        connection_timeout=settings.connection_timeout,
        on_lost=on_lost,
    )


def _host_of(address: str) -> str:
    from pyvider_rpcplugin.transport.tcp import parse_address  # noqa: PLC0415 - not for unix

    return parse_address(address)[0]
