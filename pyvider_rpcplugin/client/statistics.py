"""What a client and its plugins have done so far: what `RPCPluginClient.statistics` returns."""

from __future__ import annotations

import msgspec

from pyvider_rpcplugin.rpc.statistics import ChannelStatistics

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
