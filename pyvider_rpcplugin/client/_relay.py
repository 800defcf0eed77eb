"""Bringing what a plugin prints to where its host wants it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._tasks import unwrapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Any

    from pyvider_rpcplugin.rpc import Channel
    from pyvider_rpcplugin.services import StdioChannel

    from ._log import PluginLog
    from ._sinks import Deliver

# What is held for a sink that is slower than its plugin, and how long such a sink is waited for
# if it takes nothing at all.
_MOST = 16 << 20
_PATIENCE = 1.0
_PIECE = 65536
# How long what comes by the plugin's pipe waits for what was printed before.
_ORDER_PATIENCE = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

# How a plugin says that it has no such service, that it stops, or that somebody else listens.
_QUIET = (Status.UNIMPLEMENTED, Status.UNAVAILABLE, Status.CANCELLED)


class _Feed:
    """Holds output for one sink, so that nobody but the plugin's output waits for it."""

    def __init__(self, deliver: Deliver | None, option: str, log: PluginLog) -> None:
        self._deliver = deliver
        self._option = option
        self._log = log
        self._held = bytearray()
        self._ended = False
        self._arrived = anyio.Event()
        self._taken = anyio.Event()
        self.over: anyio.Event = anyio.Event()
        self._stalled = self._dropped = self._failed = False

    async def put(self, data: bytes) -> None:
        """Take a piece; waits for room, but not for a sink that takes nothing any more."""
        if self._deliver is None:
            return
        while len(self._held) + len(data) > _MOST and not self._stalled:
            with anyio.move_on_after(_PATIENCE) as scope:
                await self._taken.wait()
            self._stalled = scope.cancelled_caught
        self.put_nowait(data)

    def put_nowait(self, data: bytes) -> None:
        """Take a piece, in place of the oldest ones where there is no room."""
        self._held += data
        excess = len(self._held) - _MOST
        if excess > 0:
            del self._held[:excess]
            if not self._dropped:
                self._dropped = True
                self._log.warning("%s takes nothing: the plugin's output is dropped", self._option)
        self._arrived.set()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()

    async def run(self) -> None:
        """Bring it to the sink, until `end` was called and all is there."""
        if self._deliver is None:
            return
        while True:
            if not self._held:
                if self._ended:
                    self.over.set()
                    return
                self._arrived = anyio.Event()
                await self._arrived.wait()
                continue
            data = bytes(self._held[:_PIECE])
            del self._held[:_PIECE]
            try:
                await self._deliver(data)
            except Exception as exc:  # noqa: BLE001 - boundary: the sink is not ours
                if not self._failed:
                    self._failed = True
                    self._log.warning("%s failed: %r", self._option, exc)
            self._stalled = False
            self._taken.set()
            self._taken = anyio.Event()


@asynccontextmanager
async def heard_by(
    deliver: Deliver, option: str, log: PluginLog
) -> AsyncGenerator[Callable[[bytes], None]]:
    """Bring output to a sink for the length of a block, and then what is left of it.

    Args:
        deliver: Takes it.
        option: How the sink was given, for the log.
        log: Where its failures are told.

    Yields:
        What takes a piece of output, and never waits.
    """
    feed = _Feed(deliver, option, log)
    with unwrapped():
        async with anyio.create_task_group() as tg:
            tg.start_soon(feed.run)
            try:
                yield feed.put_nowait
            finally:
                feed.end()
                with anyio.move_on_after(_PATIENCE, shield=True):
                    await feed.over.wait()
                tg.cancel_scope.cancel()


class OutputRelay:
    """Takes all that a plugin prints, for as long as it lives, and brings it to the sinks."""

    def __init__(self, stdout: Deliver | None, stderr: Deliver | None, log: PluginLog) -> None:
        self._log = log
        self._stdout = _Feed(stdout, "sync_stdout", log)
        self._stderr = _Feed(stderr, "sync_stderr", log)
        self._raw = bytearray() if stdout is not None else None
        self._raw_arrived = anyio.Event()
        self._raw_ended = False
        self._stream_ended = anyio.Event()
        self.ended: anyio.Event = anyio.Event()
        """Set when the plugin's output has ended, and all of it has been brought."""

    async def run(self, channel: Channel) -> None:
        """Do it."""
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._stdout.run)
            tg.start_soon(self._stderr.run)
            async with anyio.create_task_group() as sources:
                sources.start_soon(self._receive, channel)
                sources.start_soon(self._take_raw)
            self._stdout.end()
            self._stderr.end()
        self.ended.set()

    def raw(self, data: bytes) -> None:
        """Take what the plugin has written to its pipe: that is outside of its serving."""
        if self._raw is not None:
            self._raw += data
            del self._raw[:-_MOST]
            self._raw_arrived.set()

    def end_raw(self) -> None:
        """Say that the pipe has ended."""
        self._raw_ended = True
        self._raw_arrived.set()

    async def _take_raw(self) -> None:
        while True:
            if self._raw:
                # What was printed before may still be on its way through the connection.
                with anyio.move_on_after(_ORDER_PATIENCE):
                    await self._stream_ended.wait()
                data = bytes(self._raw)
                self._raw.clear()
                await self._stdout.put(data)
            elif self._raw_ended:
                return
            else:
                self._raw_arrived = anyio.Event()
                await self._raw_arrived.wait()

    async def _receive(self, channel: Channel) -> None:
        try:
            pause = _FIRST_PAUSE
            while await self._receive_once(channel):
                await anyio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._stream_ended.set()

    async def _receive_once(self, channel: Channel) -> bool:
        """Receive until it ends; say whether to ask again."""
        from pyvider_rpcplugin.rpc import ConnectionLost  # noqa: PLC0415 - see load_engine
        from pyvider_rpcplugin.services import receive_output  # noqa: PLC0415 - see load_engine

        try:
            await receive_output(channel, self._put)
        except ConnectionLost as exc:
            # The connection alone was lost: the plugin may wait for somebody to take its output.
            return exc.exit is None
        except GRPCError as exc:
            if exc.status not in _QUIET:
                self._log.warning("the plugin's output cannot be had any more: %s", exc)
        except Exception as exc:  # noqa: BLE001 - boundary: the connection has other uses
            self._log.warning("the plugin's output cannot be had any more: %r", exc)
        return False

    async def _put(self, channel: StdioChannel, data: bytes) -> Any:
        feed = self._stdout if channel == 1 else self._stderr
        await feed.put(data)
