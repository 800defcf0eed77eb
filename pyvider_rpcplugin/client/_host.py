"""Many plugins of one program."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import anyio
from anyio import AsyncContextManagerMixin

from pyvider_rpcplugin._tasks import Operation, unwrapped
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError

from ._client import RPCPluginClient
from ._make import make_client

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from typing import Self

    from anyio.abc import TaskGroup

    from pyvider_rpcplugin.discovery import PluginProgram


class PluginHost(AsyncContextManagerMixin):
    """Starts plugins, in any order, and ends those that are left when its block ends.

    `async with PluginHost() as host:` is the task group in which all of them live.
    """

    def __init__(self) -> None:
        self._task_group: TaskGroup | None = None
        self._starting: list[RPCPluginClient] = []
        self._started: list[RPCPluginClient] = []

    @property
    def clients(self) -> tuple[RPCPluginClient, ...]:
        """The clients that have been started and not stopped, the oldest first."""
        return tuple(client for client in self._started if client.grpc_channel is not None)

    def start(
        self,
        command: Sequence[str | os.PathLike[str]] | PluginProgram | RPCPluginClient | None = None,
        config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Operation[RPCPluginClient, RPCPluginClient]:
        """Start a plugin of this host.

        `client = await host.start([...])` leaves it running until `client.stop()`, or until the
        host's block ends; `async with host.start([...]) as client:` ends it with that block.

        Args:
            command: The program and its arguments, or a client that was made before.
            config: Settings for this client.
            options: Whatever else `plugin_client` takes.

        Raises:
            RPCPluginError: As `RPCPluginClient.start`; or the host's block is not entered.
        """
        begin = functools.partial(self._start, command, config, options)
        return Operation(
            "PluginHost.start", begin, functools.partial(self._start_around_block, begin)
        )

    async def stop(self) -> None:
        """End all plugins, at the same time.

        Cancellation:
            Takes effect when they have ended, within some seconds.
        """
        async with anyio.create_task_group() as tg:
            for client in (*self._starting, *self._started):
                tg.start_soon(client.stop)

    async def _start(
        self,
        command: Sequence[str | os.PathLike[str]] | PluginProgram | RPCPluginClient | None,
        config: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> RPCPluginClient:
        if self._task_group is None:
            msg = "this host is not open"
            raise RPCPluginError(msg, hint="use `async with PluginHost() as host:`", phase="launch")
        if isinstance(command, RPCPluginClient):
            if config is not None or options:
                msg = "a client that was made before takes no further settings"
                raise ConfigError(msg, phase="launch")
            client = command
        else:
            client = make_client(command, config, **options)
        self._starting.append(client)
        try:
            await client.start(task_group=self._task_group)
        finally:
            self._starting.remove(client)
        self._started = [*self.clients, client]
        return client

    @contextlib.asynccontextmanager
    async def _start_around_block(self, begin: Any) -> AsyncGenerator[RPCPluginClient]:
        client: RPCPluginClient = await begin()
        try:
            yield client
        finally:
            await client.stop()

    @contextlib.asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        if self._task_group is not None:
            msg = "this host is open already"
            raise RPCPluginError(msg, phase="launch")
        with unwrapped():
            async with anyio.create_task_group() as tg:
                self._task_group = tg
                try:
                    yield self
                finally:
                    self._task_group = None
                    with anyio.CancelScope(shield=True):
                        await self.stop()
