"""The service that carries what a plugin prints to its host, `plugin.GRPCStdio`."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from ._messages import Empty
from ._output import OutputBuffer
from ._stdio_messages import StdioChannel, StdioData

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["OutputBuffer", "StdioChannel", "StdioService", "receive_output"]

STREAM_STDIO = "/plugin.GRPCStdio/StreamStdio"

logger: logging.Logger = logging.getLogger(__name__)

_CHUNK = 32_768


class StdioService:
    """Sends what is in a buffer to whoever asked last."""

    def __init__(self, output: OutputBuffer) -> None:
        """Make the service.

        Args:
            output: What is to be sent.
        """
        self._output = output
        self._listener: anyio.CancelScope | None = None
        self._listener_gone = anyio.Event()
        self._noticed = False
        self._all_sent = anyio.Event()

    @property
    def methods(self) -> tuple[str, ...]:
        """The paths of what stays open for as long as the host is connected."""
        return (STREAM_STDIO,)

    def __mapping__(self) -> dict[str, Handler]:
        """Name the method, as a generated grpclib class does."""
        return {STREAM_STDIO: Handler(self._stream, Cardinality.UNARY_STREAM, Empty, StdioData)}

    async def flush(self) -> None:
        """Return once all that there is has been sent. The caller bounds it.

        If nobody listens, it is over at once.
        """
        if self._listener is not None:
            self._all_sent = anyio.Event()
            self._output.wake()
            await self._all_sent.wait()

    async def finish(self) -> None:
        """End the stream once all that there is has been sent. The caller bounds it.

        If nobody listens, it is over at once.
        """
        self._output.end()
        if self._listener is not None:
            await self._listener_gone.wait()

    async def _stream(self, stream: Any) -> None:
        await stream.recv_message()
        with anyio.CancelScope() as scope:
            if self._listener is not None:
                # Two would each get a part of the text.
                self._listener.cancel()
            self._listener, self._listener_gone = scope, anyio.Event()
            self._output.listen(True)
            try:
                await self._send_all(stream)
            finally:
                if self._listener is scope:
                    self._listener = None
                    self._all_sent.set()
                    self._output.listen(False)
                    self._listener_gone.set()
        if scope.cancelled_caught:
            # Hosts in Go log most other statuses as errors.
            raise GRPCError(Status.CANCELLED, "somebody else listens now")

    async def _send_all(self, stream: Any) -> None:
        output = self._output
        while True:
            piece = output.take(_CHUNK)
            if piece is None:
                self._all_sent.set()
                if output.ended:
                    return
                await output.wait()
                continue
            try:
                await stream.send_message(StdioData(*piece))
            except BaseException:
                output.put_back(*piece)
                raise
            if output.dropped and not self._noticed:
                self._noticed = True
                logger.warning(
                    "the host did not listen: %d bytes of what was printed are lost", output.dropped
                )


async def receive_output(
    channel: Any, take: Callable[[StdioChannel, bytes], Awaitable[object]]
) -> None:
    """Ask the plugin for what it prints, and hand it on until the plugin says that it is over.

    Raises:
        GRPCError: The plugin has no such service, or it or the connection is gone.
    """
    call = channel.request(
        STREAM_STDIO, Cardinality.UNARY_STREAM, Empty, StdioData, timeout=math.inf
    )
    async with call.count_apart() as stream:
        await stream.send_message(Empty(), end=True)
        unknown = False
        while (message := await stream.recv_message()) is not None:
            try:
                which = StdioChannel(message.channel)
            except ValueError:
                if not unknown:
                    logger.warning("output of the unknown channel %d is dropped", message.channel)
                unknown = True
                continue
            if message.data:
                await take(which, message.data)
