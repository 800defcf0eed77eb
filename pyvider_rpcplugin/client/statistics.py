"""What a client and its plugins have done so far: what `RPCPluginClient.statistics` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pyvider_rpcplugin.rpc.statistics import ChannelStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvider_rpcplugin.rpc import Channel
    from pyvider_rpcplugin.rpc._counts import CallCounts

    from ._launch import Launch
    from ._lifecycle import Lifecycle

__all__ = ["ClientStatistics", "PluginStatistics"]


class PluginStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin that runs.

    Attributes:
        pid: The number of its process; None if it was not started here.
        started_at: When it could be called, in seconds since 1970.
        start_seconds: How long its start took.
        calls_sent: Calls on its present connections, those that it lives by included.
        calls_open: Those of the application's that have not ended.
        rtt: Seconds that the answer to the last PING took; None if there was none.
    """

    pid: int | None
    started_at: float | None
    start_seconds: float | None
    calls_sent: int
    calls_open: int
    rtt: float | None = None


class ClientStatistics(ChannelStatistics, frozen=True, kw_only=True):
    """A client, and the plugins that it runs: one, none, or several, if it is a pool.

    Calls are counted from the client's start to its stop, over all restarts of its plugin; starts
    and ends of plugins for as long as there is the client.

    Attributes:
        name: The plugin's name.
        plugins: Those that take calls now.
        starts: How many have come up.
        failed_starts: How many starts have come to nothing, those that were tried again included.
        exits: How many have ended by themselves, or were killed.
        restarts: How often one had to be started again for that, or for its health.
        started_at: When the latest one came up, in seconds since 1970.
        start_seconds: How long that took.
    """

    name: str
    plugins: tuple[PluginStatistics, ...] = ()
    starts: int = 0
    failed_starts: int = 0
    exits: int = 0
    restarts: int = 0
    started_at: float | None = None
    start_seconds: float | None = None

    @property
    def pid(self) -> int | None:
        """The process number of the latest plugin; None while none runs."""
        return self.plugins[0].pid if self.plugins else None


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
    from pyvider_rpcplugin.rpc._counts import total  # noqa: PLC0415 - loaded with the channel

    through = tuple(channels)
    snapshots = [channel.statistics() for channel in through]
    counts: list[CallCounts] = [channel.counts for channel in through]
    fields: dict[str, Any] = total(counts).as_fields()
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
