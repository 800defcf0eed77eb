"""The end of a server's calls, and who is told of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from pyvider_rpcplugin.rpc import Server

    Callback = Callable[[], object]

logger = logging.getLogger(__name__)


def checked_callbacks(given: Any) -> tuple[Callback, ...]:
    """Return what `on_shutdown=` was given, one by one.

    Raises:
        ConfigError: Something in it cannot be called.
    """
    if given is None:
        return ()
    several = given if hasattr(given, "__iter__") else (given,)
    callbacks: tuple[Any, ...] = tuple(several)
    for callback in callbacks:
        if not callable(callback):
            msg = f"on_shutdown= takes functions without arguments, not {type(callback).__name__}"
            raise ConfigError(msg, phase="settings")
    return callbacks


async def drain(
    rpc: Server,
    grace: float,
    callbacks: Iterable[Callback],
    at_last: Callable[[], Awaitable[object]],
) -> None:
    """Tell the program that the end has come, and let running calls finish meanwhile.

    Args:
        rpc: The server of the calls.
        grace: Seconds for both.
        callbacks: Whom to tell. What they raise is logged.
        at_last: What is to be done once both are over.
    """
    awaited = [result for callback in callbacks if (result := _call(callback)) is not None]
    if not awaited:
        await rpc.stop(grace, at_last=at_last)
        return
    told = anyio.Event()

    async def tell() -> None:
        try:
            await _wait_for(awaited, grace)
        finally:
            told.set()

    async def finish() -> None:
        await told.wait()
        await at_last()

    with unwrapped():
        async with anyio.create_task_group() as tg:
            tg.start_soon(tell)
            await rpc.stop(grace, at_last=finish)


def _call(callback: Callback) -> Awaitable[object] | None:
    try:
        result: Any = callback()
    except Exception:  # boundary: it must not keep the server from ending
        logger.exception("on_shutdown: %r failed", callback)
        return None
    return result if hasattr(result, "__await__") else None


async def _wait_for(awaited: Iterable[Awaitable[object]], grace: float) -> None:
    with anyio.move_on_after(grace) as scope:
        async with anyio.create_task_group() as tg:
            for awaitable in awaited:
                tg.start_soon(_finish, awaitable)
    if scope.cancelled_caught:
        logger.warning("on_shutdown: not over after %g seconds, and cancelled", grace)


async def _finish(awaitable: Awaitable[object]) -> None:
    try:
        await awaitable
    except Exception:  # boundary: likewise
        logger.exception("on_shutdown: %r failed", awaitable)
