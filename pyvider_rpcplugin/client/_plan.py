"""What a client was told to keep running."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyvider_rpcplugin.exception import ConfigError

from .supervision import PoolPolicy, RestartPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be kept running, and how.

    Attributes:
        restart: When a plugin that has ended is started again; None: when a call wants it.
        lazy: Whether the first start, too, waits for a call.
        idle_timeout: Seconds without a call after which plugins are stopped, until one is made.
        default_deadline: Seconds that calls may take which do not say themselves.
        pool: How many there are.
    """

    restart: RestartPolicy | None = None
    lazy: bool = False
    idle_timeout: float | None = None
    default_deadline: float | None = None
    pool: PoolPolicy = field(default_factory=PoolPolicy)

    @classmethod
    def of(
        cls,
        restart: RestartPolicy | None,
        lazy: bool,
        idle_timeout: float | None,
        pool: PoolPolicy | None,
        default_deadline: float | None,
    ) -> Plan:
        """Check a client's options.

        Raises:
            ConfigError: One is of the wrong kind.
        """
        for name, value, kind in (("restart", restart, RestartPolicy), ("pool", pool, PoolPolicy)):
            if value is not None and not isinstance(value, kind):
                msg = f"{name}= takes a {kind.__name__}, not {type(value).__name__}"
                raise ConfigError(msg, phase="settings")
        if idle_timeout is not None and not idle_timeout > 0:
            msg = f"idle_timeout={idle_timeout!r}: more than 0 seconds are needed"
            raise ConfigError(msg, phase="settings")
        if pool is not None and restart is None:
            restart = RestartPolicy()  # A pool that shrinks with each crash would be of no use.
        return cls(
            restart=restart,
            lazy=lazy,
            idle_timeout=idle_timeout,
            default_deadline=default_deadline,
            pool=pool or PoolPolicy(),
        )
