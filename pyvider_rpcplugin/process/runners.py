"""What starts a plugin: a process of this machine, a container, a shell on another one.

A runner is a function that is called with a `RunSpec` and gives an async context manager. Entering
that starts the plugin, and gives an object with what `Runner` lists; leaving it ends whatever is
left of the plugin. The host watches, hears out and ends the plugin through that object alone.

A plugin that sees another file system or another network than its host does has other addresses,
too. The object translates between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pyvider_rpcplugin.handshake import ReattachConfig

from ._process import subprocess_runner
from ._spec import RunSpec

__all__ = [
    "AttachedRunner",
    "ByteSource",
    "RunSpec",
    "Runner",
    "RunnerFactory",
    "WrappedRunner",
    "subprocess_runner",
]


class ByteSource(Protocol):
    """A stream of bytes to read: a `ByteReceiveStream` of anyio, for one."""

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        """Wait for some bytes; raise `anyio.EndOfStream` when there are no more."""
        ...


class AttachedRunner(Protocol):
    """A plugin that runs already, wherever that is."""

    @property
    def id(self) -> str:
        """What it is called where it runs: a process's number, the name of a container."""
        ...

    @property
    def pid(self) -> int | None:
        """The number of its process on this machine; None where it has none."""
        ...

    async def wait(self) -> int | None:
        """Wait until it has ended, for whatever reason; its output may still be on its way.

        Cancelling it changes nothing, and it may be called again.

        Returns:
            The exit status, negative for a signal; None if that is not known.
        """
        ...

    async def terminate(self) -> None:
        """Ask it to end, as SIGTERM does; it need not have ended when this returns."""
        ...

    async def kill(self) -> None:
        """End it by force, with all that belongs to it, as far as that can be done."""
        ...

    def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
        """Translate an address that the plugin has said into one that this host can connect to.

        Args:
            network: "unix" or "tcp".
            address: The path of a socket, or "host:port".

        Returns:
            Both, as seen from here.
        """
        ...

    def host_to_plugin(self, network: str, address: str) -> tuple[str, str]:
        """Translate an address where this host listens into one that the plugin can connect to."""
        ...


class Runner(AttachedRunner, Protocol):
    """A plugin that was started here, with its output.

    It may have one more method, `release()`: leaving the block then does not end the plugin.
    `RPCPluginClient.detach` needs it.
    """

    @property
    def name(self) -> str:
        """The program, for people: its path, the name of an image."""
        ...

    @property
    def stdout(self) -> ByteSource:
        """What the plugin writes to its standard output, from the first byte on."""
        ...

    @property
    def stderr(self) -> ByteSource:
        """What it writes to its standard error, likewise; it is split into lines by the host."""
        ...

    async def diagnose(self) -> str:
        """Say in a line or two what may have kept it from starting; "" if nothing is known.

        Asked for when no handshake line came; it has a second.
        """
        ...


RunnerFactory = (
    Callable[[RunSpec], AbstractAsyncContextManager[Runner]]
    | Callable[[ReattachConfig], AbstractAsyncContextManager[AttachedRunner]]
)
"""What `runner=` takes: the first to start a plugin, the second together with `reattach=`."""


class WrappedRunner:
    """A runner that leaves all to another one: derive from it, and change what differs."""

    def __init__(self, inner: Runner) -> None:
        """Wrap a runner.

        Args:
            inner: The other one, such as what `subprocess_runner` gives.
        """
        self.inner: Runner = inner

    @property
    def id(self) -> str:
        """What it is called where it runs."""
        return self.inner.id

    @property
    def pid(self) -> int | None:
        """Its process number on this machine."""
        return self.inner.pid

    @property
    def name(self) -> str:
        """The program, for people."""
        return self.inner.name

    @property
    def stdout(self) -> ByteSource:
        """What it writes to its standard output."""
        return self.inner.stdout

    @property
    def stderr(self) -> ByteSource:
        """What it writes to its standard error."""
        return self.inner.stderr

    async def wait(self) -> int | None:
        """Wait until it has ended."""
        return await self.inner.wait()

    async def terminate(self) -> None:
        """Ask it to end."""
        await self.inner.terminate()

    async def kill(self) -> None:
        """End it by force."""
        await self.inner.kill()

    async def diagnose(self) -> str:
        """Say what may have kept it from starting."""
        return await self.inner.diagnose()

    @property
    def release(self) -> Callable[[], None]:
        """What lets it live on; there is none if the other one has none."""
        found: Callable[[], None] = getattr(self.inner, "release")  # noqa: B009 - not in the protocol
        return found

    def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
        """Translate an address of the plugin's."""
        return self.inner.plugin_to_host(network, address)

    def host_to_plugin(self, network: str, address: str) -> tuple[str, str]:
        """Translate an address of the host's."""
        return self.inner.host_to_plugin(network, address)
