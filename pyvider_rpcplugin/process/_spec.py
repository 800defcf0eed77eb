"""What a runner is told, and what those of this machine have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from typing import Self

    from pyvider_rpcplugin.process.limits import ResourceLimits

__all__ = ["RunSpec", "SameAddresses"]


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin is to be started with. A runner has to honour all of it, or to refuse.

    Attributes:
        command: The program and its arguments; empty if the client was given none.
        env: The whole environment of the plugin. It holds what the host says to it, secrets among
            that, so it is not shown.
        cwd: The folder to start it in; None: any.
        stdin: "null", or "inherit" for a plugin that reads from this process's terminal.
        socket_folder: Where the plugin makes its sockets: a folder that only this user may enter,
            and that the host removes afterwards. The plugin is told by PLUGIN_UNIX_SOCKET_DIR in
            `env`. None: wherever it likes.
        limits: What the plugin may use at most.
        outlives_host: The plugin is meant to go on when this process ends.
    """

    command: list[str]
    env: dict[str, str]
    cwd: str | None = None
    stdin: Literal["null", "inherit"] = "null"
    socket_folder: str | None = None
    limits: ResourceLimits | None = None
    outlives_host: bool = False

    def replace(self, **changes: Any) -> Self:
        """Return the same with some of it changed."""
        return msgspec.structs.replace(self, **changes)

    def __repr__(self) -> str:
        return f"<RunSpec {self.command!r}>"


class SameAddresses:
    """A plugin that sees the addresses which its host sees."""

    def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
        """Translate an address of the plugin's: it is the same here."""
        return network, address

    def host_to_plugin(self, network: str, address: str) -> tuple[str, str]:
        """Translate an address of the host's: it is the same there."""
        return network, address
