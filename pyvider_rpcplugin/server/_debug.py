"""Serving for a debugger: a plugin that a person starts, and that hosts attach to."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.handshake import format_reattach_providers

from ._logging import logging_by

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyvider_rpcplugin.handshake import ReattachConfig

OPTION, SOCKET = "--debug", "--socket"


class DebugServe(NamedTuple):
    """What was asked for.

    Attributes:
        name: The plugin's name in a record of several; None for a record of its own.
        socket: Where to listen; None for wherever it would.
    """

    name: str | None = None
    socket: str | None = None


def from_arguments(arguments: Sequence[str]) -> DebugServe | None:
    """Read a program's arguments; those that mean nothing here are the program's own.

    Raises:
        ConfigError: There is an option without its value.
    """
    return _read(arguments)[0]


def others(arguments: Sequence[str]) -> list[str]:
    """Return those that mean nothing here.

    Raises:
        ConfigError: There is an option without its value.
    """
    return _read(arguments)[1]


def _read(arguments: Sequence[str]) -> tuple[DebugServe | None, list[str]]:
    asked, name, socket = False, None, None
    own: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option == OPTION:
            asked, name = True, value or name
        elif option == SOCKET:
            socket = value if equals else next(rest, "")
        else:
            own.append(argument)
    if not asked:
        return None, list(arguments)
    if socket == "":
        msg = f"{SOCKET} needs the path of a socket"
        raise ConfigError(msg, f"{SOCKET} PATH", phase="settings")
    return DebugServe(name, socket), own


class Announcement:
    """Says how hosts attach, once the server is up: the task status of its session."""

    def __init__(self, record: Callable[[], ReattachConfig], name: str | None) -> None:
        self._record = record
        self._name = name

    def started(self, value: Any = None, /) -> None:
        """Print the record, as one line for programs to read, and to people what it is for."""
        record = self._record()
        if self._name is None:
            line = record.to_json()
            how = "with plugin_client(reattach=...) and this record:"
        else:
            line = format_reattach_providers({self._name: record})
            how = f"with\n\n    export TF_REATTACH_PROVIDERS={shlex.quote(line)}\n"
        sys.stderr.write(
            f"This plugin serves for debugging, as process {record.pid}, until Ctrl-C stops it. "
            f"Hosts attach to it {how}\n"
        )
        sys.stderr.flush()
        # A reader that has gone does not stop a plugin that is being debugged.
        with contextlib.suppress(OSError):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def logging_to_terminal(level: int) -> contextlib.AbstractContextManager[None]:
    """Let all that is logged in a block be read by people, from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    return logging_by(handler, level)
