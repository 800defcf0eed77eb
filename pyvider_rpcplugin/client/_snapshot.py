"""How the statistics of a client are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyvider_rpcplugin.rpc._counts import total

from .statistics import ClientStatistics, PluginStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvider_rpcplugin.rpc import Channel

    from ._launch import Launch
    from ._lifecycle import Lifecycle


def client_statistics(
    lifecycle: Lifecycle,
    channels: Iterable[Channel],
    launches: Iterable[Launch],
) -> ClientStatistics:
    """Take a snapshot.

    Args:
        lifecycle: The client's.
        channels: What its calls go through; the plugin's output and broker go through the first.
        launches: The plugins that run.
    """
    through = tuple(channels)
    snapshots = [channel.statistics() for channel in through]
    fields: dict[str, Any] = total(channel.counts for channel in through).as_fields()
    return ClientStatistics(
        name=lifecycle.name,
        plugins=tuple(_plugin(launch, through, fields["calls_open"]) for launch in launches),
        starts=lifecycle.starts,
        failed_starts=lifecycle.failed_starts,
        exits=lifecycle.exits,
        restarts=lifecycle.restarts,
        started_at=lifecycle.started_at,
        start_seconds=lifecycle.start_seconds,
        connections=sum(one.connections for one in snapshots),
        bytes_sent=sum(one.bytes_sent for one in snapshots),
        bytes_received=sum(one.bytes_received for one in snapshots),
        calls_waiting=sum(one.calls_waiting for one in snapshots),
        rtt=next((one.rtt for one in snapshots if one.rtt is not None), None),
        **fields,
    )


def _plugin(launch: Launch, through: tuple[Channel, ...], open_calls: int) -> PluginStatistics:
    channel = launch.channel
    # A client that runs one plugin may have two connections to it.
    channels = through if channel in through else () if channel is None else (channel,)
    live = [connection for one in channels for connection in one.live_connections()]
    if channel is not None and channel not in through:
        open_calls = sum(channel.open_calls(one) for one in through)
    return PluginStatistics(
        pid=launch.pid,
        started_at=launch.started_at,
        start_seconds=launch.start_seconds,
        calls_sent=sum(connection.h2.requests_sent for connection in live),
        calls_open=open_calls,
        rtt=next((one.rtt for one in live if one.rtt is not None), None),
    )
