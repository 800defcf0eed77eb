"""Streams of a call, while control is with its caller: what comes back, and what is fed in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, final

import anyio
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._loops import caller_from_threads

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


class Opening(Protocol):
    """How the call is made whose results are read."""

    async def begin(self) -> tuple[AnyCall, Feeder | None]:
        """Make it; and what feeds it, if something does."""

    def read(self, data: bytes) -> Any:
        """Read a result."""

    async def explained(self, call: AnyCall, error: GRPCError) -> Exception | None:
        """What to raise for its failure; None: it may begin once more."""

    def end(self) -> None:
        """It is over; also if it did not begin."""


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
        "_feeder",
        "_opening",
        "_results",
    )

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._call: AnyCall | None = None
        self._feeder: Feeder | None = None
        self._call_in_loop: Callable[[Callable[[], object]], object] | None = None
        self._results = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._ended:
            raise StopAsyncIteration
        call = self._call or await self._begin()
        try:
            data = await call.recv_message()
            if data is None:
                await call.recv_status()
        except anyio.BusyResourceError:
            raise
        except GRPCError as error:
            failure = await self._failed(call, error)
            if failure is None:
                return await self.__anext__()
            raise failure from None
        except Exception:
            self._end()
            raise
        if data is None:
            self._end()
            raise StopAsyncIteration
        self._results = True
        try:
            result: T = self._opening.read(data)
        except BaseException:
            self._end()
            raise
        return result

    async def _begin(self) -> AnyCall:
        try:
            call, self._feeder = await self._opening.begin()
        except BaseException:
            self._opening.end()
            raise
        self._call_in_loop = caller_from_threads()
        self._call = call
        return call

    async def _failed(self, call: AnyCall, error: GRPCError) -> Exception | None:
        """What to raise for a failure; None: the call can be made again."""
        self._end()
        failure = await self._opening.explained(call, error)
        if failure is None and not self._results and self._feeder is None:
            self._ended = False
            self._call = None
            return None
        return failure or error

    def _end(self) -> None:
        self._ended = True
        self._end_call()()

    async def aclose(self) -> None:
        """End the call, if it has not ended: the other side is told at once.

        An iterator that was given to the call is closed, if it is an async generator.
        """
        self._end()
        feeder = self._feeder
        if feeder is not None:
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
        call, feeder, opening = self._call, self._feeder, self._opening

        def end() -> None:
            if feeder is not None:
                feeder.stop()
            if call is not None:
                call.abandon()
            opening.end()

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
