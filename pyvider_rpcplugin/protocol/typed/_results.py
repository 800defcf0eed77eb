"""Streams of a call, while control is with its caller: what comes back, and what is fed in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import anyio
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._tasks import caller_from_threads

from ._iterators import close_iterator

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from types import TracebackType
    from typing import Self

    from pyvider_rpcplugin.rpc import ClientStream

    AnyCall = ClientStream[Any, Any]

__all__ = ["ResultStream"]

T = TypeVar("T")

# How long the end of an iterator that was given up is waited for.
_CLOSE_TIMEOUT = 5.0


@final
class ResultStream(Generic[T]):
    """The results of a method that yields: an async iterator, and an async context manager.

    Nothing is sent before the first one is asked for. Whoever leaves before the last one, by
    leaving the block, by `aclose()`, or by dropping the object, ends the call: the method is
    cancelled on the other side.

    Cancellation:
        Waiting for the next result may be cancelled, and begun again: none is lost.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_call_in_loop",
        "_ended",
        "_failure",
        "_feeder",
        "_message",
        "_read",
    )

    def __init__(
        self,
        call: AnyCall,
        message: bytes,
        read: Callable[[bytes], T],
        failure: Callable[[AnyCall, GRPCError], Exception],
        feeder: Feeder | None,
    ) -> None:
        self._call = call
        self._message: bytes | None = message
        self._read = read
        self._failure = failure
        self._feeder = feeder
        self._call_in_loop: Callable[[Callable[[], object]], object] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._ended:
            raise StopAsyncIteration
        call = self._call
        try:
            if self._message is not None:
                await self._begin(self._message)
            data = await call.recv_message()
            if data is None:
                await call.recv_status()
        except GRPCError as error:
            self._end()
            raise self._failure(call, error) from None
        except anyio.BusyResourceError:
            raise
        except Exception:
            self._end()
            raise
        if data is None:
            self._end()
            raise StopAsyncIteration
        try:
            return self._read(data)
        except BaseException:
            self._end()
            raise

    async def _begin(self, message: bytes) -> None:
        feeder = self._feeder
        self._call_in_loop = caller_from_threads()
        await self._call.send_message(message, end=feeder is None)
        self._message = None
        if feeder is not None:
            self._call.channel.start_soon(feeder.run)

    def _end(self) -> None:
        self._ended = True
        if self._feeder is not None:
            self._feeder.stop()
        self._call.abandon()

    async def aclose(self) -> None:
        """End the call, if it has not ended: the other side is told at once.

        An iterator that was given to the call is closed, if it is an async generator.
        """
        self._end()
        feeder = self._feeder
        if feeder is not None and self._message is None:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await feeder.ended.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A finalizer may run in any thread, and in the midst of anything.
        if self._call_in_loop is not None and not self._ended:
            with contextlib.suppress(RuntimeError):  # The loop has ended, and the call with it.
                self._call_in_loop(self._end_call())

    def _end_call(self) -> Callable[[], object]:
        """What ends the call, without this object."""
        call, feeder = self._call, self._feeder

        def end() -> None:
            if feeder is not None:
                feeder.stop()
            call.abandon()

        return end


@final
class Feeder:
    """Sends what an iterator gives, one message each, while the call goes on."""

    def __init__(
        self, call: AnyCall, items: AsyncIterable[Any], write: Callable[[Any], bytes]
    ) -> None:
        self._call = call
        self._items = items
        self._write = write
        self._scope = anyio.CancelScope()
        self.ended = anyio.Event()

    def stop(self) -> None:
        """Send no more."""
        self._scope.cancel()

    async def run(self) -> None:
        """Do it. What the iterator raises becomes what the call raises."""
        call = self._call
        iterator: Any = None
        try:
            with self._scope:
                try:
                    iterator = self._items.__aiter__()
                    async for item in iterator:
                        await call.send_message(self._write(item))
                        if not call.is_heard:
                            return
                    await call.end()
                finally:
                    await close_iterator(iterator)
        except Exception as error:  # noqa: BLE001 - boundary: whoever waits for the answer gets it
            call.fail(error)
        finally:
            self.ended.set()
