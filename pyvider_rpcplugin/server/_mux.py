"""Several plugins in one program, of which an argument chooses one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pyvider_rpcplugin.exception import ProtocolError, RPCPluginError

from ._server import RPCPluginServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    Plugin = RPCPluginServer | Callable[[], RPCPluginServer]


class PluginMux:
    """A program that is one of several plugins; usually made by `plugin_mux`."""

    def __init__(self, plugins: Mapping[str, Plugin]) -> None:
        """Make it.

        Args:
            plugins: Servers by their plugins' names, or functions that make them.

        Raises:
            ProtocolError: There are none, or a name cannot be an argument.
        """
        if not plugins:
            msg = "there are no plugins to choose from"
            raise ProtocolError(msg, phase="serve")
        for name in plugins:
            if not name or name.startswith("-"):
                msg = f"{name!r} cannot be the name of a plugin: it is an argument of the program"
                raise ProtocolError(msg, phase="serve")
        self._plugins = dict(plugins)

    def __repr__(self) -> str:
        return f"<PluginMux {' '.join(self._plugins)}>"

    def server(self, name: str) -> RPCPluginServer:
        """Return the server of one plugin, made now if it has not been.

        Raises:
            ProtocolError: There is no such plugin.
        """
        plugin = self._plugins.get(name)
        if plugin is None:
            msg = f"there is no plugin {name!r:.200} in this program"
            raise ProtocolError(msg, self._hint, phase="serve")
        if isinstance(plugin, RPCPluginServer):
            return plugin
        made = self._plugins[name] = plugin()
        return made

    def run(
        self,
        backend: Literal["asyncio", "trio"] = "asyncio",
        *,
        debug: bool | str | None = None,
        use_uvloop: bool = False,
        **backend_options: Any,
    ) -> None:
        """Be the plugin that the program's one argument names, as the server's `run` does it.

        Without that argument, with another one, or with more than one this says so on stderr and
        exits with status 1. The arguments for debugging do not count.

        Args:
            backend: The event loop: "asyncio" or "trio".
            debug: As for the server's `run`.
            use_uvloop: As for the server's `run`.
            backend_options: What else `anyio.run` takes as backend_options.

        Raises:
            SystemExit: With status 1.
        """
        try:
            server = self.server(self._chosen(sys.argv[1:]))
        except RPCPluginError as exc:
            sys.stderr.write(f"{exc}\n")
            raise SystemExit(1) from None
        server.run(backend, debug=debug, use_uvloop=use_uvloop, **backend_options)

    def _chosen(self, arguments: list[str]) -> str:
        if any(argument.startswith("--") for argument in arguments):
            from ._debug import others  # noqa: PLC0415 - not for hosts

            arguments = others(arguments)
        if len(arguments) != 1:
            msg = "this program is several plugins: its one argument has to be the name of one"
            raise ProtocolError(msg, self._hint, phase="serve")
        return arguments[0]

    @property
    def _hint(self) -> str:
        return f"there are: {', '.join(sorted(self._plugins))}"
