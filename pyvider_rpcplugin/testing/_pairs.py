"""A host's client and a plugin, connected: in one process, or in two."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin.factories import plugin_client, plugin_server
from pyvider_rpcplugin.handshake import ReattachConfig
from pyvider_rpcplugin.transport.memory import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from pyvider_rpcplugin.client import RPCPluginClient
    from pyvider_rpcplugin.protocol.base import RPCPluginProtocol
    from pyvider_rpcplugin.transport.memory import MemoryListener

__all__ = ["connected", "launched", "plugin_command"]

_START = "import sys; sys.path[:0] = {path!r}; from {module} import main; main(sys.argv[1])"


class _Transport(MemoryTransport):
    """The memory that a plugin's main connection goes through.

    What its broker makes goes over Unix sockets: that is what this says it is.
    """

    network = "unix"

    def __init__(self) -> None:
        super().__init__()
        self.ended = anyio.Event()

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[MemoryListener, None]:
        """Listen for as long as the plugin serves."""
        try:
            async with super().listen() as listener:
                yield listener
        finally:
            self.ended.set()


class _InThisProcess:
    """What stands for the plugin's process: a server in this one."""

    pid = None
    id = "memory"

    def __init__(self, transport: _Transport, address: str, end: Callable[[], Any]) -> None:
        self._transport = transport
        self._address = address
        self._end = end

    async def wait(self) -> int | None:
        await self._transport.ended.wait()
        return None

    async def terminate(self) -> None:
        await self._end()

    async def kill(self) -> None:
        await self._end()

    def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
        return ("memory" if address == self._address else network), address

    def host_to_plugin(self, network: str, address: str) -> tuple[str, str]:
        return network, address


@asynccontextmanager
async def connected(
    handler: Any = None,
    *,
    protocol: RPCPluginProtocol | Mapping[int, Any] | None = None,
    server: Mapping[str, Any] | None = None,
    **client: Any,
) -> AsyncGenerator[RPCPluginClient]:
    """Serve a handler and connect a client to it, both in this event loop.

    All that a call goes through is as it is between two processes: messages are encoded, interceptors
    are called, errors become statuses, deadlines count. There is no process, no handshake line and
    no TLS, and printed output stays where it is; brokered connections go over Unix sockets.

    Args:
        handler: What is served, as for `plugin_server`.
        protocol: What registers it, likewise.
        server: More arguments of `plugin_server`.
        client: Arguments of `plugin_client`, such as `interceptors`, and settings of the host's.

    Yields:
        The client, started: it has `stub`, `proxy`, `broker`, `ping` and all the rest. It ends when
        the block does, and so does the server.

    Raises:
        ProtocolError: There is nothing to serve.
        ConfigError: An argument is wrong.
    """
    transport = _Transport()
    options: dict[str, Any] = {"auto_mtls": False, **(server or {})}
    plugin = plugin_server(protocol, handler, transport, **options)
    async with plugin.serve(debug=True) as address:

        @asynccontextmanager
        async def runner(_: ReattachConfig) -> AsyncGenerator[_InThisProcess]:
            yield _InThisProcess(transport, address, plugin.stop)

        version = plugin.negotiated_version or 0
        record = ReattachConfig(
            network="unix", address=address, protocol_version=version, test=True
        )
        settings: dict[str, Any] = {"auto_mtls": False, "protocol_versions": [version], **client}
        async with plugin_client(reattach=record, runner=runner, **settings) as host:
            yield host


def launched(handler: Any, **options: Any) -> RPCPluginClient:
    """Make the client of a plugin that serves a class of the test's own, in a process.

    Args:
        handler: As for `plugin_command`.
        options: Arguments of `plugin_client`.

    Returns:
        The client, not started: `async with launched(Greeter) as client:`.

    Raises:
        TypeError: It cannot be found again in another process.
    """
    return plugin_client(plugin_command(handler), **options)


def plugin_command(handler: Any) -> list[str]:
    """Return the command of a plugin that serves a class of the test's own.

    The plugin imports the module in which it is defined, which may be that of the test.

    Args:
        handler: A class, or a function without arguments, at the top of a module. It is called: what
            it returns is the handler, or the plugin's server as `plugin_server` makes one.

    Raises:
        TypeError: It cannot be found again in another process.
    """
    name = getattr(handler, "__qualname__", None)
    module = sys.modules.get(getattr(handler, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if name is None or module is None or file is None or "<locals>" in name:
        what = name or f"an object of the class {type(handler).__name__}"
        msg = (
            f"{what} cannot be found again in another process: give a class or a function that is "
        )
        msg += "defined at the top of a module"
        raise TypeError(msg)
    start = _START.format(path=[*filter(None, sys.path)], module=f"{__package__}._serve")
    return [sys.executable, "-c", start, f"{os.path.abspath(file)}:{module.__name__}:{name}"]
