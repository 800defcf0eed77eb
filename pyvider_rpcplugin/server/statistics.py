"""What a plugin's server has done so far: what `RPCPluginServer.statistics` returns."""

from __future__ import annotations

from pyvider_rpcplugin.rpc.statistics import ServerStatistics

__all__ = ["PluginServerStatistics"]


class PluginServerStatistics(ServerStatistics, frozen=True, kw_only=True):
    """A server, from the latest time on that it began to serve.

    Attributes:
        address: Where it listens; None if it does not.
        pid: The number of this process.
        started_at: When it began to serve, in seconds since 1970; None if it never did.
        version: The version of the application's protocol that is served; None if it does not serve.
    """

    address: str | None
    pid: int
    started_at: float | None
    version: int | None
