"""By which way a client comes to its plugin, and what goes together with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_source(
    *,
    command: object,
    address: object,
    reattach: object,
    runner: object,
    secure: object,
    multiplex: bool,
    for_a_start: Mapping[str, object],
) -> None:
    """See that the options say one way, and fit to it.

    Args:
        command: What to start.
        address: Where a server is.
        reattach: The record of a plugin that runs.
        runner: What starts it, or attaches to it.
        secure: The checksum of what is started.
        multiplex: Whether all connections share one socket.
        for_a_start: Options that say how a plugin is started; None where not given.

    Raises:
        ConfigError: They do not.
    """
    starts = address is None and reattach is None
    by_start = command if runner is None or not starts else command or runner
    if sum(one is not None for one in (by_start, address, reattach)) != 1:
        msg = "a client needs one of these: a command, an address, or the record of a plugin that "
        msg += "runs"
        raise ConfigError(msg, phase="launch")
    debug = for_a_start.get("debug")
    if debug not in {None, "wait"}:
        msg = f"debug is {debug!r}: accepted is 'wait'"
        raise ConfigError(msg, phase="settings")
    if runner is not None:
        _check_runner(runner, address, secure)
    if starts:
        return
    for option, value in for_a_start.items():
        if value is not None:
            msg = f"{option}= is for a plugin that is started"
            raise ConfigError(msg, phase="settings")
    if multiplex:
        msg = "PLUGIN_MULTIPLEX_GRPC is for plugins that this host starts, not for an address"
        if reattach is not None:
            msg = "a plugin that runs already cannot share a connection with another host"
        raise ConfigError(msg, phase="settings")


def _check_runner(runner: object, address: object, secure: object) -> None:
    if not callable(runner):
        kind = type(runner).__name__
        msg = f"runner= takes a function that is called with what to start, not {kind}"
        raise ConfigError(msg, phase="settings")
    if address is not None:
        msg = "runner= is for a plugin that is started, or whose record is given"
        raise ConfigError(msg, phase="settings")
    if secure is not None:
        msg = "secure= checks a program of this machine: it cannot see what a runner starts"
        raise ConfigError(msg, "Let the runner check it.", phase="settings")
