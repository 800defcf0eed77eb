"""For programs on asyncio that cannot keep a plugin in an `async with` block.

Most need nothing from here: `await client.start()` and `await client.stop()` work from any two
tasks of a loop, and what they start runs in a task of its own. These functions are for what
asyncio's programs do besides: hand the life of plugins to a web framework, wait for one with
`asyncio.wait` or a callback, and run a loop by hand.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin._tasks import sessions_of_this_loop, unwrapped
from pyvider_rpcplugin.exception import RPCPluginError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from pyvider_rpcplugin.client import RPCPluginClient
    from pyvider_rpcplugin.exception import PluginExit

__all__ = ["exit_future", "lifespan", "shutdown_plugins"]

# A loop has only weak references to its tasks.
_tasks: set[asyncio.Future[Any]] = set()


def lifespan(
    **clients: RPCPluginClient,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, RPCPluginClient]]]:
    """Make the lifespan of an ASGI application that calls plugins: of Starlette, FastAPI and such.

    The plugins are started at the same time, before the application takes requests, and stopped
    after the last one. `FastAPI(lifespan=lifespan(greeter=plugin_client([...])))` lets a handler
    use `request.state.greeter`.

    Args:
        clients: The clients, not started, by the names that requests know them by.

    Returns:
        A function that the framework calls with the application. It may be used again: each time
        starts the plugins anew.

    Raises:
        RPCPluginError: From the block: a plugin could not be started. Those that were are stopped
            first. Several failures are an ExceptionGroup.

    Cancellation:
        Of the start or of the block: all plugins are stopped before it goes on.
    """

    @contextlib.asynccontextmanager
    async def run(_application: Any = None) -> AsyncGenerator[dict[str, RPCPluginClient]]:
        started: list[RPCPluginClient] = []

        async def start(client: RPCPluginClient) -> None:
            await client.start()
            started.append(client)

        try:
            await _together(functools.partial(start, client) for client in clients.values())
            yield dict(clients)
        finally:
            await _together(client.stop for client in started)

    return run


async def _together(functions: Iterable[Callable[[], Any]]) -> None:
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            for function in functions:
                tasks.start_soon(function)


def exit_future(client: RPCPluginClient) -> asyncio.Future[PluginExit | None]:
    """Make a future of the end of a plugin: for `asyncio.wait`, or `add_done_callback`.

    Args:
        client: A client that runs, and was not started in a task group of the caller's. Its loop
            need not be running at the moment.

    Returns:
        Done when the plugin has ended, for whatever reason: its result says how (None where that
        is not known). It is cancelled when the loop ends first.

    Raises:
        RPCPluginError: The client does not run, or has no process: it attached to a server.

    Cancellation:
        Of the future: only it is cancelled. The plugin runs on.
    """
    session = client._session  # noqa: SLF001 - one part of it in a module of its own
    if client.pid is None or session is None or session.loop is None:
        msg = f"there is no plugin of {client.name} that could end"
        raise RPCPluginError(msg, hint="await client.start() first", phase="call")
    exited, loop = client.exited, session.loop

    async def wait() -> PluginExit | None:
        await exited.wait()
        return client.exit

    task = loop.create_task(wait(), name=f"end of plugin {client.name}")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def shutdown_plugins() -> None:
    """End whatever plugins and plugin servers still run in tasks of this loop, at the same time.

    For a loop that is run by hand, like asyncio's own `loop.shutdown_asyncgens()`: run it to its
    end before `loop.close()`, after which nothing can be ended in order. `asyncio.run` needs it
    not: it cancels what is left, and a warning says so.

    Those that were started in a task group of the caller's end with that, and are left alone.

    Cancellation:
        Takes effect when all have ended, within some seconds.
    """
    sessions = sessions_of_this_loop()
    for session in sessions:
        session.request_stop()
    await _together(session.wait_finished for session in sessions)
