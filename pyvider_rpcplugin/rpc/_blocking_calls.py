"""Calls as plain functions and iterators, for threads.

They stand on a `Driver`: usually the blocking channel, which lets the calling thread do all of it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._interrupts import protected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from grpclib.metadata import _Metadata as Metadata

    from ._channel import Channel
    from ._client_stream import ClientStream
    from ._metadata import Deadline, MetadataLike

    AnyCall = ClientStream[Any, Any]

T = TypeVar("T")
StreamT = TypeVar("StreamT")
SendT = TypeVar("SendT")
RecvT = TypeVar("RecvT")


class Driver(Protocol):
    """What blocking calls go through."""

    def prepare(
        self, make: Callable[[Channel, Deadline | None], StreamT], timeout: float | None
    ) -> StreamT:
        """Prepare a call in another way: `make` is given the channel and the deadline."""

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: Any,
        reply_type: Any,
        **options: Any,
    ) -> AnyCall:
        """Prepare a call."""

    def unary(
        self,
        name: str,
        types: tuple[Any, Any],
        message: Any,
        timeout: float | None,
        metadata: MetadataLike | None,
    ) -> Any:
        """Make the whole of a call with one message each way."""

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of its calls to its end, waiting."""

    def forget(self, stream: AnyCall) -> None:
        """Give up a call, from a finalizer."""


class BlockingStream(Generic[SendT, RecvT]):
    """One call, used by `with`, for one thread that sends and one that receives.

    Leaving the block waits for the end of the call and raises `GRPCError` if its status is not OK.
    A call that is left by an exception, Ctrl-C among them, is ended at once, and so is one that
    nobody refers to any more.

    Attributes:
        driver: What it goes through.
        stream: The call as the event loops' code knows it, with all that is known of it.
        over: The block was left, or the call closed.
    """

    __slots__ = ("__weakref__", "driver", "over", "stream")

    def __init__(self, driver: Driver, stream: ClientStream[SendT, RecvT]) -> None:
        self.driver = driver
        self.stream = stream
        self.over = False

    @property
    def initial_metadata(self) -> Metadata | None:
        """What came with the response headers; None before."""
        return self.stream.initial_metadata

    @property
    def trailing_metadata(self) -> Metadata | None:
        """What came at the end; None before."""
        return self.stream.trailing_metadata

    def send_request(self, *, end: bool = False) -> None:
        """Send the request's headers; `send_message` does it where it was not done."""
        self.driver.drive(self.stream.send_request(end=end))

    def send_message(self, message: SendT, *, end: bool = False) -> None:
        """Send one message.

        Args:
            message: An instance of the method's request type.
            end: Whether it is the last one. A unary request's always is.

        Raises:
            GRPCError: The call has failed already; or RESOURCE_EXHAUSTED, the message is too large.
            DeadlineExceeded: The deadline passed.
        """
        self.driver.drive(self.stream.send_message(message, end=end))

    def end(self) -> None:
        """Say that no message will follow (streamed requests only)."""
        self.driver.drive(self.stream.end())

    def recv_initial_metadata(self) -> None:
        """Wait for the response's headers; afterwards `initial_metadata` is there."""
        self.driver.drive(self.stream.recv_initial_metadata())

    def recv_message(self) -> RecvT | None:
        """The next message; None at the end of the stream.

        Raises:
            GRPCError: The call has failed.
            DeadlineExceeded: The deadline passed.
        """
        return self.driver.drive(self.stream.recv_message())

    def recv_trailing_metadata(self) -> None:
        """Wait for the end of the call; afterwards `trailing_metadata` is there.

        Raises:
            GRPCError: The status of the call is not OK.
        """
        self.driver.drive(self.stream.recv_trailing_metadata())

    def cancel(self) -> None:
        """End the call at once; the server is told. Any thread may do it."""
        self.driver.drive(self.stream.cancel())

    def close(self) -> None:
        """End the call, in whatever state it is. Any thread may do it."""
        if not self.over:
            self.over = True
            self.driver.drive(_close(self.stream))

    def __iter__(self) -> Iterator[RecvT]:
        return self

    def __next__(self) -> RecvT:
        message = self.recv_message()
        if message is None:
            raise StopIteration
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.close()
            return
        self.over = True
        self.driver.drive(self.stream.__aexit__(None, None, None))

    @protected  # An interrupt would be lost in here.
    def __del__(self) -> None:
        if not self.over:
            self.driver.forget(self.stream)


async def _close(stream: AnyCall) -> None:
    if stream.peer is not None:  # It has begun, and a thread may be waiting for it.
        stream.fail(GRPCError(Status.CANCELLED, "the call was closed"))
    stream.abandon()


class Replies(Generic[RecvT]):
    """The replies of a call as they come: an iterator, and a block.

    Closing it, leaving the block, or dropping it ends the call: the other side stops working on it.

    Attributes:
        call: The call itself.
    """

    __slots__ = ("call",)

    def __init__(self, call: BlockingStream[Any, RecvT]) -> None:
        self.call = call

    @property
    def initial_metadata(self) -> Metadata | None:
        """What came before the first reply; None before."""
        return self.call.initial_metadata

    @property
    def trailing_metadata(self) -> Metadata | None:
        """What came after the last one; None before."""
        return self.call.trailing_metadata

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RecvT:
        """The next reply.

        Raises:
            GRPCError: The call has failed.
            DeadlineExceeded: The deadline passed.
        """
        call = self.call
        if call.over:
            raise StopIteration
        try:
            message = call.recv_message()
            if message is not None:
                return message
            call.__exit__(None, None, None)
        except BaseException:
            call.close()
            raise
        raise StopIteration

    def close(self) -> None:
        """End the call, if it has not ended."""
        self.call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Sender:
    """Sends requests from a thread of its own while another one takes the replies.

    The requests may depend on the replies, so neither may wait for the other. It does not refer to
    who takes the replies, who can thus be missed; the next request then ends the thread.
    """

    __slots__ = ("_driver", "_stream")

    def __init__(self, driver: Driver, stream: AnyCall) -> None:
        self._driver = driver
        self._stream = stream

    def start(self, requests: Iterable[Any], name: str) -> None:
        """Begin."""
        threading.Thread(
            target=self._run, args=(requests,), name=f"requests of {name}", daemon=True
        ).start()

    def _run(self, requests: Iterable[Any]) -> None:
        try:
            send_all(self._driver, self._stream, requests)
        except GRPCError:
            pass  # Who takes the replies gets the same.
        except Exception as error:  # noqa: BLE001 - boundary: the caller's iterator has failed
            with contextlib.suppress(GRPCError):
                self._driver.drive(_fail(self._stream, error))


async def _fail(stream: AnyCall, error: Exception) -> None:
    stream.fail(error)


def send_all(driver: Driver, stream: AnyCall, requests: Iterable[Any]) -> None:
    """Send requests, as long as they are wanted, and say that these were all."""
    drive = driver.drive
    for request in requests:
        if not stream.is_heard:
            return
        drive(stream.send_message(request))
    if stream.is_heard:
        drive(stream.end())


class Method:
    """One method of a service, as a function. Its kinds differ in what they take and give."""

    def __init__(
        self,
        current: Callable[[], Driver],
        name: str,
        kind: Cardinality,
        request_type: Any,
        reply_type: Any,
    ) -> None:
        self._current = current
        self.name = name
        self.kind = kind
        self.request_type = request_type
        self.reply_type = reply_type

    def _request(
        self, driver: Driver, timeout: float | None, metadata: MetadataLike | None
    ) -> AnyCall:
        return driver.request(
            self.name,
            self.kind,
            self.request_type,
            self.reply_type,
            timeout=timeout,
            metadata=metadata,
        )

    def open(
        self, *, timeout: float | None = None, metadata: MetadataLike | None = None
    ) -> BlockingStream[Any, Any]:
        """Make a call by hand, in a `with` block.

        Args:
            timeout: Seconds that the call may take.
            metadata: What is sent with the request.
        """
        driver = self._current()
        return BlockingStream(driver, self._request(driver, timeout, metadata))

    def __repr__(self) -> str:
        return f"<blocking method {self.name}>"


class UnaryUnary(Method):
    """One request, one reply."""

    def __call__(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> Any:
        """Call it.

        Raises:
            GRPCError: The call has failed.
            DeadlineExceeded: The deadline passed.
        """
        types = (self.request_type, self.reply_type)
        return self._current().unary(self.name, types, message, timeout, metadata)


class UnaryStream(Method):
    """One request, any number of replies."""

    def __call__(
        self,
        message: Any,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> Replies[Any]:
        """Call it, and iterate over the replies, which raises as `UnaryUnary` does."""
        call = self.open(timeout=timeout, metadata=metadata)
        call.send_message(message, end=True)
        return Replies(call)


class StreamUnary(Method):
    """Any number of requests, one reply."""

    def __call__(
        self,
        messages: Iterable[Any],
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> Any:
        """Call it. Fewer requests are taken if the reply comes before their end."""
        with self.open(timeout=timeout, metadata=metadata) as call:
            call.send_request()
            send_all(call.driver, call.stream, messages)
            return call.recv_message()


class StreamStream(Method):
    """Any number of requests and of replies."""

    def __call__(
        self,
        messages: Iterable[Any],
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> Replies[Any]:
        """Call it, and iterate over the replies.

        The requests are taken in a thread of their own, so they may depend on the replies. A thread
        less, `open` lets the calling thread do both.
        """
        call = self.open(timeout=timeout, metadata=metadata)
        call.send_request()
        Sender(call.driver, call.stream).start(messages, self.name)
        return Replies(call)


KINDS: dict[Cardinality, type[Method]] = {
    Cardinality.UNARY_UNARY: UnaryUnary,
    Cardinality.UNARY_STREAM: UnaryStream,
    Cardinality.STREAM_UNARY: StreamUnary,
    Cardinality.STREAM_STREAM: StreamStream,
}


def make_blocking(stub: T, current: Callable[[], Driver]) -> T:
    """Make plain functions of the methods of a stub that grpclib's plugin has generated."""
    for name, method in vars(stub).items():
        kind: Any = getattr(method, "_cardinality", None)
        if kind in KINDS and hasattr(method, "open"):
            blocking = KINDS[kind](
                current, method.name, kind, method.request_type, method.reply_type
            )
            setattr(stub, name, blocking)
    return stub
