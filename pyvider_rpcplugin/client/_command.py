"""What a client was told to start, or where to connect."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from pyvider_rpcplugin.exception import ConfigError, HandshakeError

if TYPE_CHECKING:
    from pyvider_rpcplugin.discovery import PluginProgram
    from pyvider_rpcplugin.transport import RPCPluginTransport


def as_program(command: object) -> PluginProgram | None:
    """Return the command if it is what `discover` or `python_plugin` makes."""
    # Who has one has loaded its module.
    module: Any = sys.modules.get("pyvider_rpcplugin.discovery._program")
    if module is None or not isinstance(command, module.PluginProgram):
        return None
    return cast("PluginProgram", command)


def checked_command(command: Any) -> list[str]:
    """Return the command as a list of words.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(command, str | bytes | os.PathLike):
        command = cast("str | bytes | os.PathLike[str]", command)
        msg = f"the command is one {type(command).__name__}, not a list"
        split = os.fsdecode(command).split() if isinstance(command, str | bytes) else []
        hint = f"for a program without arguments: [{os.fsdecode(command)!r}]; no shell is used"
        if len(split) > 1:
            hint = f"each word by itself: {split!r}; no shell is used"
        raise ConfigError(msg, hint, phase="launch")
    if not isinstance(command, Sequence) or not command:
        msg = f"the command has to be a list of the program and its arguments, not {command!r}"
        raise ConfigError(msg, phase="launch")
    words: list[Any] = list(cast("Any", command))
    try:
        return [os.fsdecode(word) for word in words]
    except TypeError as exc:
        msg = f"the command holds something that is neither text nor a path: {command!r}"
        raise ConfigError(msg, phase="launch") from exc


def checked_versions(program: PluginProgram, offered: tuple[int, ...]) -> None:
    """See that a plugin serves a version that its host has, as far as is known before its start.

    Raises:
        HandshakeError: It does not.
    """
    served = program.protocol_versions
    if served and not set(served) & set(offered):
        msg = (
            f"the plugin {program.name} serves the versions {_listed(served)} of its protocol, and"
        )
        msg += f" this host has {_listed(offered)}"
        hint = (
            f"It was not started: {program.path} says so. The host's are PLUGIN_PROTOCOL_VERSIONS."
        )
        raise HandshakeError(msg, hint, phase="launch")


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(str(version) for version in versions)


def plugin_name(command: Any, address: str | None, reattach: Any = None) -> str:
    """Return a short name for log lines and tasks: of the script rather than of its interpreter."""
    if reattach is not None:
        from ._reattach import checked_record  # noqa: PLC0415 - seldom needed

        try:
            pid = checked_record(reattach).pid
        except ConfigError:
            pid = 0
        return f"attached-{pid}" if pid else "attached"
    if address is not None:
        return address
    if (program := as_program(command)) is not None:
        return program.name
    try:
        words = checked_command(command)
    except ConfigError:
        return "plugin"
    file = os.path.basename(words[0])
    if file.startswith("python"):
        for before, word in itertools.pairwise(words):
            if before == "-m":
                return word
            if not word.startswith("-") and before != "-c":
                return os.path.splitext(os.path.basename(word))[0]
    return file or "plugin"


def transport_at(address: str) -> RPCPluginTransport:
    """Return the transport that connects to what `get_address` of a standalone server gives.

    Raises:
        TransportError: It is neither a path nor host:port.
    """
    from pyvider_rpcplugin.transport import transport_for  # noqa: PLC0415 - see load_engine

    return transport_for("unix" if _is_path(address) else "tcp", address)


def server_name(address: str) -> str:
    """Return the name to look for in the certificate of the server at `address`."""
    if _is_path(address):
        return "localhost"
    from pyvider_rpcplugin.transport.tcp import parse_address  # noqa: PLC0415 - see load_engine

    host, _ = parse_address(address)
    return "localhost" if host == "::1" or host.startswith("127.") else host


def _is_path(address: str) -> bool:
    return "/" in address or os.sep in address or ":" not in address
