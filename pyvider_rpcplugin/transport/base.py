"""What every transport offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from anyio.abc import ByteStream, Listener

from pyvider_rpcplugin.exception import TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup

__all__ = ["Connecting", "RPCPluginTransport", "StreamListener"]

_StreamT = TypeVar("_StreamT", bound=ByteStream)


class StreamListener(Listener[ByteStream]):
    """Accepts connections, one at a time or all of them."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it listens, in the form that a handshake line carries."""

    @abstractmethod
    async def accept(self) -> ByteStream:
        """Wait for the next connection.

        The stream belongs to the caller.

        Raises:
            anyio.ClosedResourceError: The listener was closed.
            anyio.BusyResourceError: Another task waits here already.

        Cancellation:
            Safe: no accepted connection is lost.
        """

    async def serve(
        self, handler: Callable[[Any], Awaitable[object]], task_group: TaskGroup | None = None
    ) -> None:
        """Run `handler(stream)` as a task for every connection, until cancelled.

        Args:
            handler: Gets the stream, which is closed when it returns or raises.
            task_group: Where the handlers live. Without one, they end together with this call.
        """
        async with AsyncExitStack() as stack:
            if task_group is None:
                task_group = await stack.enter_async_context(anyio.create_task_group())
            while True:
                task_group.start_soon(_handle, handler, await self.accept())


async def _handle(handler: Callable[[ByteStream], Awaitable[object]], stream: ByteStream) -> None:
    async with stream:
        await handler(stream)


class Connecting(Generic[_StreamT]):
    """A connection to be: await it for the stream, or enter it to have the stream for a block."""

    __slots__ = ("_connect", "_stream")

    def __init__(self, connect: Callable[[], Awaitable[_StreamT]]) -> None:
        self._connect = connect
        self._stream: _StreamT | None = None

    def __await__(self) -> Generator[Any, Any, _StreamT]:
        return self._connect().__await__()

    async def __aenter__(self) -> _StreamT:
        stream = self._stream = await self._connect()
        return stream

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            await self._stream.aclose()


class RPCPluginTransport(ABC):
    """Where a plugin listens and a host connects."""

    network: str
    """The name of this kind of transport in a handshake line."""

    def __init__(self) -> None:
        self._listener: StreamListener | None = None

    @property
    def address(self) -> str:
        """Where it listens.

        Raises:
            TransportError: It does not listen.
        """
        if self._listener is None:
            message = f"the {self.network} transport has no address: it does not listen"
            raise TransportError(message, hint="the address exists once listen() was entered")
        return self._listener.address

    def _begin_listening(self) -> None:
        if self._listener is not None:
            message = f"this {self.network} transport already listens on {self._listener.address}"
            raise TransportError(message, hint="use one transport object for each listener")

    @abstractmethod
    def listen(self) -> AbstractAsyncContextManager[StreamListener]:
        """Listen for the length of an `async with` block.

        Yields:
            The listener. It is closed at the end of the block, and what it left in the file
            system is removed. Streams that it gave out live on.

        Raises:
            TransportError: Nobody can listen there.
        """

    @abstractmethod
    def connect(self) -> Connecting[Any]:
        """Connect, either by `stream = await ...` or by `async with ... as stream`.

        It takes as long as the operating system needs: put it into a scope with a deadline.

        Raises:
            TransportError: Nobody listens there, or it cannot be reached.

        Cancellation:
            Safe: a half-made connection is closed.
        """
