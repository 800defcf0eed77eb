"""The errors of the plugin system, and how a plugin ended.

A call's own failure is not here: that is grpclib's ``GRPCError``. These are the errors of
everything around the calls::

    RPCPluginError
    ├── ConfigError (also a ValueError)   a setting
    ├── TransportError                    starting the process, sockets, connections
    ├── HandshakeError                    cookie, versions, the handshake line
    ├── ProtocolError                     services and how they are registered
    └── SecurityError                     certificates and TLS

Standard library only: every other module may import this one.
"""

from __future__ import annotations

import signal
from typing import NamedTuple

__all__ = [
    "ConfigError",
    "HandshakeError",
    "PluginExit",
    "ProtocolError",
    "RPCPluginError",
    "SecurityError",
    "TransportError",
]


class PluginExit(NamedTuple):
    """How a plugin process ended, as far as it is known.

    Attributes:
        status: The exit status as ``subprocess`` counts it: negative for a signal, ``None`` while
            the process runs or where its status cannot be had.
        stderr_tail: The last lines that the plugin wrote to its standard error, oldest first.
    """

    status: int | None
    stderr_tail: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say how it ended, as the end of a sentence: "exited with status 3"."""
        if self.status is None:
            return "has ended"
        if self.status >= 0:
            return f"exited with status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            # Real-time signals have numbers, but no names of their own.
            name = f"signal {-self.status}"
        return f"was killed by {name}"

    def last_lines(self, n: int = 3) -> tuple[str, ...]:
        """The last ``n`` lines of the standard error that are not blank."""
        if n <= 0:
            return ()
        return tuple(line for line in self.stderr_tail if line.strip())[-n:]


class RPCPluginError(Exception):
    """The base of all errors of the plugin system.

    Args:
        message: What went wrong, in one line.
        hint: What the reader can do about it.
        code: A code of the caller's choice; kept as given, never shown.
        phase: What was being done when it went wrong ("launch", "handshake", "connect", ...).
        exit: How the plugin process ended, when its end is part of the story.
    """

    message: str
    hint: str | None
    code: int | str | None
    phase: str | None
    exit: PluginExit | None

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        code: int | str | None = None,
        *,
        phase: str | None = None,
        exit: PluginExit | None = None,  # noqa: A002 - the attribute's name, which users read
    ) -> None:
        # Only the message goes into args. Pickling and copying call the class with args and then
        # restore the instance's attributes, so the other values survive both.
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.phase = phase
        self.exit = exit

    @property
    def exit_status(self) -> int | None:
        """The plugin's exit status, negative for a signal; ``None`` if there is none to tell."""
        return None if self.exit is None else self.exit.status

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines that the plugin wrote to its standard error, oldest first."""
        return () if self.exit is None else self.exit.stderr_tail

    def __str__(self) -> str:
        line = " ".join(str(self.message).split("\n"))
        return f"{line}\nHint: {self.hint}" if self.hint else line


class ConfigError(RPCPluginError, ValueError):
    """A setting is unknown, malformed, out of range, or not available."""


class TransportError(RPCPluginError):
    """A process could not be started, or a socket or connection failed."""


class HandshakeError(RPCPluginError):
    """Host and plugin did not come to an agreement: cookie, version, or the handshake line."""


class ProtocolError(RPCPluginError):
    """A service cannot be registered, or would serve nothing."""


class SecurityError(RPCPluginError):
    """A certificate, a key, or the set-up of TLS is not acceptable."""
