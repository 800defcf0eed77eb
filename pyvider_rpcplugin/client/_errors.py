"""Errors of the start that say what the plugin said."""

from __future__ import annotations

from typing import TypeVar

from pyvider_rpcplugin import logs
from pyvider_rpcplugin.exception import PluginExit, RPCPluginError

E = TypeVar("E", bound=RPCPluginError)

_LONGEST_LINE = 200


def failure(
    kind: type[E],
    message: str,
    *,
    phase: str,
    exit: PluginExit | None = None,  # noqa: A002 - the error's own name for it
    hint: str | None = None,
) -> E:
    """Make an error whose hint ends with the plugin's last words (three lines at most)."""
    return kind(message, hint=with_last_words(hint, exit), phase=phase, exit=exit)


def with_last_words(hint: str | None, exit: PluginExit | None) -> str | None:  # noqa: A002
    """Return a hint of at most four lines: one of advice, three of the plugin's stderr."""
    lines = [hint] if hint else []
    if exit is not None:
        lines += [_shortened(f"stderr: {logs.readable(line)}") for line in exit.last_lines(3)]
    return "\n".join(lines) or None


def complete(error: RPCPluginError, phase: str, exit: PluginExit | None) -> None:  # noqa: A002
    """Add what only the launch knows to an error that came from a lower layer."""
    if error.phase is None:
        error.phase = phase
    if error.exit is None and exit is not None:
        error.exit = exit
        error.hint = with_last_words((error.hint or "").partition("\n")[0] or None, exit)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 3] + "..."
