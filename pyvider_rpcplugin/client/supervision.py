"""What a host says about plugins that are to be kept running, and what it is told of them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pyvider_rpcplugin.exception import ConfigError, PluginExit

__all__ = ["PluginEvent", "PoolPolicy", "RestartPolicy"]

# Settings are checked when they are given: msgspec itself checks only what it decodes.
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class _Checked(msgspec.Struct, frozen=True, kw_only=True):
    def __post_init__(self) -> None:
        try:
            for field in msgspec.structs.fields(type(self)):
                _check(field, getattr(self, field.name))
        except msgspec.ValidationError as exc:
            msg = f"{type(self).__name__}: {exc}"
            raise ConfigError(msg, phase="settings") from None


def _check(field: msgspec.structs.FieldInfo, value: object) -> None:
    try:
        msgspec.convert(value, field.type)
    except msgspec.ValidationError as exc:
        msg = f"{field.name}={value!r}: {exc}"
        raise msgspec.ValidationError(msg) from None


class RestartPolicy(_Checked, frozen=True, kw_only=True):
    """Whether, when, and how often a plugin that has ended is started again.

    Attributes:
        max_restarts: How many restarts there may be within `window` seconds; at the next end the
            plugin is given up, and calls fail. For a pool: times its size.
        window: Seconds.
        initial_backoff: Seconds before the first restart; each further one within the window waits
            `multiplier` times as long, and no longer than `max_backoff`.
        max_backoff: Seconds.
        multiplier: At least 1.
        jitter: By which share of itself a pause may be longer or shorter, from 0 to 1.
        calls: What becomes of calls that are made while no plugin runs: "wait" for the restart,
            within their deadlines, or "fail" at once.
        health_interval: Seconds between questions to the plugin's health service; one that does not
            answer SERVING so often is ended, and started again. None: it is not asked.
        health_timeout: Seconds that an answer may take.
        health_failures: How many bad answers in a row it takes.
    """

    max_restarts: _Count = 5
    window: _Positive = 60.0
    initial_backoff: _NotNegative = 0.1
    max_backoff: _NotNegative = 10.0
    multiplier: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    calls: Literal["wait", "fail"] = "wait"
    health_interval: _Positive | None = None
    health_timeout: _Positive = 5.0
    health_failures: _Count = 3


class PoolPolicy(_Checked, frozen=True, kw_only=True):
    """How many plugins a pool runs, and for how long each.

    Attributes:
        size: How many, at least.
        max_size: How many there may be when all are busy.
        busy_calls: A plugin with so many open calls counts as busy.
        shrink_after: Seconds without a call after which a plugin beyond `size` is stopped.
        spares: How many more are kept started, without calls, to take the place of one that ends.
        max_calls: A plugin that has had so many calls is replaced; None: never.
        max_age: Seconds after which a plugin is replaced; None: never.
        max_memory: Bytes of resident memory beyond which a plugin is replaced; None: never.
        check_interval: Seconds between looks at age, calls and memory.
        drain_timeout: Seconds that the calls of one that is replaced may take to end.
    """

    size: _Count = 1
    max_size: _Count | None = None
    busy_calls: _Count = 1
    shrink_after: _Positive = 30.0
    spares: Annotated[int, msgspec.Meta(ge=0)] = 0
    max_calls: _Count | None = None
    max_age: _Positive | None = None
    max_memory: _Count | None = None
    check_interval: _Positive = 1.0
    drain_timeout: _NotNegative = 30.0

    @property
    def wears(self) -> bool:
        """Whether plugins are ever replaced for what they have done, or have become."""
        return not (self.max_calls is self.max_age is self.max_memory is None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_size is not None and self.max_size < self.size:
            msg = f"PoolPolicy: max_size={self.max_size} is less than size={self.size}"
            raise ConfigError(msg, phase="settings")


Kind = Literal["started", "exited", "unhealthy", "restarting", "gave_up", "stopped"]


class PluginEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that has happened to a plugin of a supervised client, or of a pool.

    Attributes:
        kind: "started": it can be called. "exited": it has ended by itself, or was killed.
            "unhealthy": it is ended because of what its health service said. "restarting": another
            start follows in `delay` seconds. "gave_up": none does. "stopped": it was ended on
            purpose: stopped, idle, replaced.
        name: The plugin's name.
        pid: The number of its process; None where none was started.
        exit: How it ended, once it has.
        delay: Seconds until the next start.
        reason: Why, in words.
    """

    kind: Kind
    name: str
    pid: int | None = None
    exit: PluginExit | None = None
    delay: float | None = None
    reason: str = ""
