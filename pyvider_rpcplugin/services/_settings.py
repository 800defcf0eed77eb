"""Settings as clients and servers take them, and as the RPC engine, which knows none, is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from pyvider_rpcplugin.config import level_number, load_settings, setting_names
from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.rpc import RPCOptions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pyvider_rpcplugin.config import Settings


def rpc_options(settings: Settings, default_timeout: float | None = None) -> RPCOptions:
    """Make the engine's options out of one client's or server's settings.

    Args:
        settings: The client's or the server's.
        default_timeout: Seconds that a client's calls may take which do not say themselves.
    """
    return RPCOptions(
        max_receive_message_size=settings.grpc_max_receive_message_size,
        max_send_message_size=settings.grpc_max_send_message_size,
        max_concurrent_streams=settings.max_concurrent_streams,
        max_concurrent_calls=settings.max_concurrent_calls,
        max_connections=settings.max_connections,
        keepalive_time=settings.grpc_keepalive_time_ms / 1000,
        keepalive_timeout=settings.grpc_keepalive_timeout_ms / 1000,
        settings_timeout=settings.connection_timeout,
        max_workers=settings.max_workers,
        default_timeout=default_timeout,
    )


# The level that was set here: another one is the program's doing.
_applied_level: int = logging.NOTSET


def apply_log_level(side: Literal["host", "plugin"]) -> None:
    """Give the library's logger the level that the process is set to, unless the program did.

    What one client or server is given as `config=` has no part in it.
    """
    global _applied_level  # noqa: PLW0603 - a logger's level is the whole process's
    library = logging.getLogger("pyvider_rpcplugin")
    if library.level == _applied_level:
        library.setLevel(level_number(load_settings(side=side).log_level))
        _applied_level = library.level


def check_keywords(given: Iterable[str], options: Collection[str], function: str) -> None:
    """See that every keyword is a setting; the function's own options are known to it already.

    Raises:
        ConfigError: One is not; the nearest name that is known is in the hint.
    """
    names = setting_names()
    for keyword in given:
        if keyword in names:
            continue
        import difflib  # noqa: PLC0415 - only to explain an error

        near = difflib.get_close_matches(keyword, [*options, *names], n=1, cutoff=0.5)
        msg = f"{function} has no option {keyword!r}, and there is no such setting"
        raise ConfigError(msg, hint=f"did you mean {near[0]!r}?" if near else None)
