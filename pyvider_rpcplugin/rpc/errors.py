"""The errors of calls. All of them are grpclib's `GRPCError`, and three say more.

- `ConnectionLost`: UNAVAILABLE, the connection, or the plugin behind it, is gone.
- `CallRefused`: UNAVAILABLE, the server has certainly not begun with the call.
- `DeadlineExceeded`: DEADLINE_EXCEEDED, and a TimeoutError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from pyvider_rpcplugin.exception import PluginExit

__all__ = ["CallRefused", "ConnectionLost", "DeadlineExceeded"]


class ConnectionLost(GRPCError):
    """The connection that carried a call, or should have carried it, is gone.

    Attributes:
        exit: How the plugin ended, where it is known that it did.
    """

    def __init__(self, message: str, exit: PluginExit | None = None) -> None:  # noqa: A002
        super().__init__(Status.UNAVAILABLE, message)
        self.args: tuple[object, ...] = (message, exit)
        self.exit = exit

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}"

    @property
    def exit_status(self) -> int | None:
        """The plugin's exit status, negative for a signal; None if it is not known."""
        return None if self.exit is None else self.exit.status

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines that the plugin wrote to stderr."""
        return () if self.exit is None else self.exit.stderr_tail


class CallRefused(GRPCError):
    """The server has said that it has not begun with a call, and will not: it may be made again."""

    def __init__(self, message: str | None) -> None:
        super().__init__(Status.UNAVAILABLE, message)
        self.args: tuple[object, ...] = (message,)

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}"


class DeadlineExceeded(GRPCError, TimeoutError):
    """The call's deadline passed before it was complete."""

    def __init__(self, message: str | None = None, details: Any = None) -> None:
        message = message or "the deadline of the call has passed"
        super().__init__(Status.DEADLINE_EXCEEDED, message, details)
        # What an OSError makes of its arguments says nothing here.
        self.args: tuple[object, ...] = (message,) if details is None else (message, details)
        self.errno: int | None = None
        self.strerror: str | None = None
        self.filename: str | bytes | int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.details)

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}"
