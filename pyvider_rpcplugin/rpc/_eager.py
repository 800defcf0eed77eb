"""Calls that begin when they are made, and whose objects tell everything about them: `grpc.aio`'s.

A call of grpclib's form is a block in its user's frame. One of these is an object that any number
of tasks may ask and that may also be dropped. It needs no task of its own as long as it can begin
at once: what comes in makes its state, and who awaits it waits for a change of that. Where it has
to wait, for a connection or for an iterator of requests, a task of the channel's attends to it.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, AsyncIterable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._loops import waiter_factory
from pyvider_rpcplugin.http2 import ErrorCode

from ._call import encode_message, encoding_named, wait_until
from ._client_stream import (
    LARGEST_KEPT,
    NO_MESSAGE,
    TOO_MANY_MESSAGES,
    ClientStream,
    response_head,
)
from ._grpcio import (
    aio,
    code_of,
    invalid_state,
    raise_cancelled,
    received_metadata,
    rpc_error,
)
from ._status import OK, CallStatus
from .errors import CallRefused, ConnectionLost, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from grpclib.const import Cardinality
    from grpclib.metadata import _Metadata as Metadata

    from pyvider_rpcplugin._loops import Waiter
    from pyvider_rpcplugin.http2 import HeaderBlock, StreamReset

    from ._call import MessageChannel
    from ._channel import Channel
    from ._compression import MessageEncoding
    from ._connection import RPCConnection
    from ._grpcio import FunctionCodec
    from ._metadata import Deadline
    from ._retry import Attempts

    Encoded = tuple[bytes, bytes]

logger = event_logger(__name__)

_LOCALLY_CANCELLED = "Locally cancelled by application!"
_OUT_OF_TIME = CallStatus(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
_TRUNCATED = CallStatus(Status.INTERNAL, "the response ended in the middle of a message")
_GIVEN_UP = CallStatus(Status.CANCELLED, "the call was given up")
_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
_STYLES = "The iterator and read/write APIs may not be mixed on a single RPC."
# How long to wait before another attempt to connect, where the caller wants one: as gRPC has it.
_FIRST_PAUSE, _PAUSE_GROWTH, _LONGEST_PAUSE = 0.1, 1.6, 5.0


def _nobody() -> None:
    return None


class EagerStream(ClientStream[Any, Any]):
    """The stream of a call, which tells the call that something has come."""

    __slots__ = ("announced", "attempts", "codec", "encoding", "find_call")

    def __init__(
        self,
        channel: Channel,
        name: str,
        metadata: Metadata | None,
        cardinality: Cardinality,
        deadline: Deadline | None,
        codec: FunctionCodec,
        encoding: MessageEncoding | None,
    ) -> None:
        super().__init__(channel, name, metadata, cardinality, object, object, deadline, codec)
        self.codec: FunctionCodec = codec
        self.encoding: MessageEncoding | None = encoding
        # Of a call that may be made again; None: it may not, unless the server has not begun.
        self.attempts: Attempts | None = None
        self.announced: bool = False
        # The connection holds the stream, and that must not keep a call which was dropped.
        self.find_call: Callable[[], Call | None] = _nobody

    def on_headers(self, headers: HeaderBlock, *, end_stream: bool) -> None:
        super().on_headers(headers, end_stream=end_stream)
        head = response_head(headers)
        if head.encoding is not None and self._messages is not None:
            try:
                self._messages.encoding_in = encoding_named(head.encoding)
            except GRPCError as error:
                self._messages.fail(GRPCError(Status.INTERNAL, error.message))
        self.tell()

    def on_data(self, data: bytes | memoryview, *, end_stream: bool) -> None:
        super().on_data(data, end_stream=end_stream)
        self.tell()

    def on_trailers(self, headers: HeaderBlock) -> None:
        super().on_trailers(headers)
        self.tell()

    def on_reset(self, event: StreamReset) -> None:
        super().on_reset(event)
        self.tell()

    def on_lost(self, error: Exception) -> None:
        super().on_lost(error)
        self.tell()

    def tell(self) -> None:
        """Let the call look at what has come."""
        call = self.find_call()
        if call is not None:
            call.look()

    # What the call may know of it.

    @property
    def channel(self) -> Channel:
        """The channel."""
        return self._owner

    @property
    def messages(self) -> MessageChannel | None:
        """Its messages; None before it has begun."""
        return self._messages

    @property
    def headers(self) -> HeaderBlock | None:
        """The response's header section, unless it is the trailers too."""
        return None if self._headers is self._trailer_block else self._headers

    @property
    def trailers(self) -> HeaderBlock | None:
        """The trailer section."""
        return self._trailer_block

    @property
    def due(self) -> Deadline | None:
        """By when the call must be complete."""
        return self._due

    def refusal(self) -> CallStatus | None:
        """What is wrong with the response's headers; None: nothing so far."""
        if self._headers is None:
            return None
        return response_head(self._headers).status

    def final_status(self) -> CallStatus:
        """The status that what has come makes."""
        return self._final_status()

    def encode(self, message: Any) -> Encoded:
        """One message, as it is sent, or with an empty prefix if it is for `pack`."""
        return encode_message(
            message,
            object,
            self.codec,
            self._owner.options.max_send_message_size,
            self.encoding,
        )

    async def pack(self, data: bytes) -> Encoded:
        """A large message as it is sent, compressed."""
        messages = self._messages
        if messages is not None:
            return await messages.pack(data)
        encoding: Any = self.encoding
        return await self._owner.message_channel.pack_message(encoding, data, self._due)

    def pause_after(self, status: CallStatus, cause: Exception | None) -> float | None:
        """How long to wait before another attempt at the call; None: there is to be none."""
        if isinstance(cause, CallRefused) and not self._refused and self._headers is None:
            self._refused = True
            return 0.0
        if self.attempts is None:
            return None
        return self.attempts.next_pause(self._owner, status.status, self._due)

    def forget_attempt(self) -> None:
        """Be a call that has not begun."""
        messages, self._messages = self._messages, None
        self._headers = self._trailer_block = None
        if messages is not None:
            messages.on_window()
            messages.close()
            self._owner.stream_closed()

    def told(self, status: CallStatus) -> None:
        """The call has ended with this status: tell those who want to know."""
        self.count_end_as(status)
        self._tell(status)

    def _tell(self, status: CallStatus) -> None:
        if self._observers:
            from ._interceptors import notify  # noqa: PLC0415 - loaded where there are some

            notify(self._observers, status)

    def _check_wanted(self) -> None:
        """Refuse to begin a call that was given up; who has come to observe it since is told.

        Raises:
            GRPCError: CANCELLED.
        """
        if self.find_call() is None:
            self._tell(_GIVEN_UP)
            raise GRPCError(_GIVEN_UP.status, _GIVEN_UP.message)

    def begin_now(self) -> MessageChannel | None:
        """Open the stream if that can be done at once; the caller flushes."""
        connection = self._owner.connection_now()
        return None if connection is None else self._open_eagerly(connection)

    def _open_eagerly(self, connection: RPCConnection) -> MessageChannel:
        return self._open(connection, end=False, encoding=self.encoding)

    async def begin(self, *, wait_for_ready: bool) -> MessageChannel:
        """Open the stream, as soon as there is a connection; the caller flushes.

        Raises:
            GRPCError: It is given up, by its user or by an interceptor, or there is no connection.
        """
        self._check_wanted()
        if not self.announced and (self._owner.interceptors or self._owner.events.active):
            await self._announce()
            self._check_wanted()
        self.announced = True
        pause = _FIRST_PAUSE
        while True:
            try:
                connection = await self._owner.wait_connection(self._due)
            except ConnectionLost as error:
                if not wait_for_ready or error.exit is not None:
                    raise
                await anyio.sleep(pause)
                pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)
            else:
                return self._open_eagerly(connection)


class Call:
    """A call that has begun: what `grpc.aio.Call` is.

    Args:
        stream: Its stream, not yet begun.
        wait_for_ready: Whether to try again as long as there is no connection.
    """

    def __init__(self, stream: EagerStream, *, wait_for_ready: bool) -> None:
        self._stream = stream
        self._wait_for_ready = wait_for_ready
        self._status: CallStatus | None = None
        self._cause: Exception | None = None
        self._cancelled_here = False
        self._initial: Any = None
        self._trailing: Any = None
        self._waiters: list[Waiter] = []
        self._callbacks: list[Callable[[Any], object]] = []
        self._attendant: anyio.CancelScope | None = None
        self._first: Encoded | None = None
        self._new_waiter = waiter_factory()
        stream.find_call = weakref.ref(self)
        stream.channel.remember_loop()

    def __del__(self) -> None:
        if getattr(self, "_status", OK) is None:
            # Here anybody may be in the midst of anything, even another thread.
            self._stream.channel.call_soon(partial(_abandon, self._stream, self._attendant))

    def __repr__(self) -> str:
        status = self._status
        if status is None:
            return f"<{type(self).__name__} object>"
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f"\tstatus = {code_of(status.status)}\n"
            f'\tdetails = "{status.message or ""}"\n>'
        )

    # --- beginning ---------------------------------------------------------------------------

    def _begin(self, first: Encoded | None, requests: Any = None) -> None:
        """Begin: at once if that is possible, and with an attendant otherwise.

        Args:
            first: The one request, encoded; None where requests are streamed.
            requests: An iterable of requests.
        """
        stream = self._stream
        channel = stream.channel
        if first is not None and (stream.attempts is not None or len(first[1]) <= LARGEST_KEPT):
            self._first = first
        try:
            # Whom the call is announced to may wait, and so does a large message to be compressed.
            large = first is not None and not first[0]
            waits = channel.interceptors or channel.events.active or large
            messages = None if waits else stream.begin_now()
            if messages is not None:
                sent = first is None or messages.send_now(*first, end_stream=True)
                messages.flush()
                if sent and requests is None:
                    return
                if sent:
                    first = None
            self._attendant = scope = anyio.CancelScope()
            channel.start_soon(_attend, stream, scope, first, requests, self._wait_for_ready)
        except Exception as error:  # noqa: BLE001 - boundary: the call has failed
            self.failed(error)

    def _encode(self, request: Any) -> Encoded | None:
        """One request as it is sent; None: the call has failed, because it cannot be."""
        try:
            return self._stream.encode(request)
        except GRPCError as error:
            self.failed(error)
        except Exception as error:
            logger.debug("rpc.request.unserializable", exc_info=True)
            self._settle(CallStatus(Status.INTERNAL, "Exception serializing request!"), error)
        return None

    # --- its state ---------------------------------------------------------------------------

    def look(self) -> None:
        """Something has come in: see what it makes of the call."""
        if self._status is None:
            self._advance()
        self._wake()

    def _advance(self) -> None:
        """Settle the call if what has come ends it."""
        stream = self._stream
        messages = stream.messages
        if messages is None:
            return
        if messages.failure is not None:
            self.failed(messages.failure)
            return
        refusal = stream.refusal()
        if refusal is not None:
            self._give_up(refusal)
        elif (stream.trailers is not None or messages.buffer.eof) and self._all_taken(messages):
            self._settle(stream.final_status())

    def _all_taken(self, messages: MessageChannel) -> bool:
        """Whether the user has all messages, so that the end is what comes next."""
        return not messages.buffer.partial and messages.packed is None

    def failed(self, error: Exception) -> None:
        """The call has ended with an error of ours."""
        if isinstance(error, DeadlineExceeded):
            self._settle(_OUT_OF_TIME, error)
        elif isinstance(error, GRPCError):
            self._settle(CallStatus(error.status, error.message, error.details), error)
        else:
            self._settle(CallStatus(Status.INTERNAL, f"{type(error).__name__}: {error}"), error)

    def _give_up(self, status: CallStatus, cause: Exception | None = None) -> None:
        """End the call with a status of our own; the server is told."""
        messages = self._stream.messages
        if messages is not None:
            messages.reset(ErrorCode.CANCEL)
        self._settle(status, cause)

    def _settle(self, status: CallStatus, cause: Exception | None = None) -> None:
        if self._status is not None:
            return
        if status.status is Status.UNAVAILABLE and self._again(status, cause):
            return
        self._status = status
        self._cause = cause
        stream = self._stream
        stream.find_call = _nobody
        stream.told(status)
        messages = stream.messages
        if messages is not None:
            messages.on_window()  # Whoever sends learns that nobody listens any more.
            messages.close()
            stream.channel.stream_closed()
        if self._attendant is not None:
            self._attendant.cancel()
        self._wake()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._run_callback(callback)

    def _again(self, status: CallStatus, cause: Exception | None) -> bool:
        """Make the call again, if it may be; say whether it is."""
        stream = self._stream
        if self._first is None or self._has_answer():
            return False
        pause = stream.pause_after(status, cause)
        if pause is None:
            return False
        scope = anyio.CancelScope()
        try:
            stream.channel.start_soon(
                _attend, stream, scope, self._first, None, self._wait_for_ready, pause
            )
        except GRPCError:
            return False
        if self._attendant is not None:
            self._attendant.cancel()
        self._attendant = scope
        self._initial = self._trailing = None
        stream.forget_attempt()
        return True

    def _has_answer(self) -> bool:
        """Whether a response has come, or a part of one."""
        messages = self._stream.messages
        return messages is not None and not Call._all_taken(self, messages)

    def _run_callback(self, callback: Callable[[Any], object]) -> None:
        try:
            callback(self)
        except Exception:  # boundary: a callback must not disturb the connection
            logger.exception("rpc.callback.failed")

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake()

    async def _wait(self) -> None:
        """Wait for a change; at the deadline the call ends."""
        waiter = self._new_waiter()
        self._waiters.append(waiter)
        try:
            await wait_until(waiter, self._stream.due)
        except DeadlineExceeded as error:
            self._give_up(_OUT_OF_TIME, error)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _wait_settled(self) -> CallStatus:
        while self._status is None:
            await self._wait()
        return self._status

    async def _wait_begun(self) -> None:
        while self._status is None and self._stream.messages is None:
            await self._wait()

    # --- what the user asks ------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the call is over."""
        return self._status is not None

    def cancelled(self) -> bool:
        """Whether it ended with CANCELLED."""
        return self._status is not None and self._status.status is Status.CANCELLED

    def cancel(self) -> bool:
        """End the call at once; False if it was over."""
        if self._status is not None:
            return False
        self._cancelled_here = True
        self._give_up(CallStatus(Status.CANCELLED, _LOCALLY_CANCELLED))
        return True

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have `callback` called with this object once the call is over."""
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        """Seconds that are left; None without a deadline."""
        due = self._stream.due
        return None if due is None else due.time_remaining()

    async def initial_metadata(self) -> Any:
        """Wait for what comes with the response's headers."""
        while self._status is None and self._stream.headers is None:
            await self._wait()
        return self._initial_metadata()

    def _initial_metadata(self) -> Any:
        if self._initial is None:
            block = self._stream.headers
            self._initial = received_metadata(() if block is None else block.fields)
        return self._initial

    async def trailing_metadata(self) -> Any:
        """Wait for what comes at the end."""
        await self._wait_settled()
        return self._trailing_metadata()

    def _trailing_metadata(self) -> Any:
        if self._trailing is None:
            block = self._stream.trailers
            self._trailing = received_metadata(() if block is None else block.fields)
        return self._trailing

    async def code(self) -> Any:
        """Wait for the end, and give the status."""
        return code_of((await self._wait_settled()).status)

    async def details(self) -> str:
        """Wait for the end, and give the status's message."""
        return (await self._wait_settled()).message or ""

    async def debug_error_string(self) -> str:
        """Wait for the end, and say where the status comes from."""
        await self._wait_settled()
        return self._origin()

    def _origin(self) -> str:
        return "" if self._cause is None else str(self._cause)

    async def wait_for_connection(self) -> None:
        """Wait until the request is on its way.

        Raises:
            grpc.aio.AioRpcError: The call has failed.
        """
        await self._wait_begun()
        if self._status is not None:
            self._raise_for_status()

    def _raise_for_status(self) -> None:
        """Raise what a call that is over raises, unless its status is OK."""
        status = self._status or OK
        if status.status is Status.OK:
            return
        error = rpc_error(
            status, self._initial_metadata(), self._trailing_metadata(), self._origin()
        )
        if self._cancelled_here:
            raise_cancelled(error)
        raise error from self._cause


class UnaryResponse(Call):
    """A call with one response, which awaiting it gives."""

    def __init__(self, stream: EagerStream, *, wait_for_ready: bool) -> None:
        super().__init__(stream, wait_for_ready=wait_for_ready)
        self._response: Any = None
        self._answered = False
        self._unpacking: anyio.CancelScope | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._wait_response().__await__()

    async def _wait_response(self) -> Any:
        if self._status is None:
            try:
                await self._wait_settled()
            except anyio.get_cancelled_exc_class():
                self.cancel()
                raise
        self._raise_for_status()
        return self._response

    def _advance(self) -> None:
        messages = self._stream.messages
        if messages is not None and messages.failure is None:
            if self._unpacking is None and messages.buffer.partial:
                self._take(messages)
            if self._unpacking is not None:
                return
        if self._status is None:
            super()._advance()

    def _all_taken(self, messages: MessageChannel) -> bool:
        return True

    def _has_answer(self) -> bool:
        return self._answered or super()._has_answer()

    def _take(self, messages: MessageChannel) -> None:
        """Take the response as soon as it is here: nothing waits for who awaits the call."""
        try:
            response = messages.take_message(object)
        except GRPCError as error:
            self._give_up(CallStatus(error.status, error.message), error)
            return
        if messages.packed is not None:
            self._unpacking = scope = anyio.CancelScope()
            try:
                self._stream.channel.start_soon(self._unpack, messages, scope)
            except GRPCError as error:
                self._give_up(CallStatus(error.status, error.message), error)
        elif response is None:
            messages.credit_early()
        elif self._answered:
            self._give_up(TOO_MANY_MESSAGES)
        else:
            self._answered = True
            self._response = response

    async def _unpack(self, messages: MessageChannel, scope: anyio.CancelScope) -> None:
        """Take a response that is large and compressed."""
        with scope:
            try:
                response = await messages.unpack(object)
            except DeadlineExceeded as error:
                self._give_up(_OUT_OF_TIME, error)
                return
            except GRPCError as error:
                self._give_up(CallStatus(error.status, error.message), error)
                return
            self._unpacking = None
            if self._answered:
                self._give_up(TOO_MANY_MESSAGES)
                return
            self._answered = True
            self._response = response
            self.look()

    def _settle(self, status: CallStatus, cause: Exception | None = None) -> None:
        if self._unpacking is not None:
            self._unpacking.cancel()
        messages = self._stream.messages
        if status.status is Status.OK and messages is not None:
            if messages.buffer.partial:
                status = _TRUNCATED if not self._answered else TOO_MANY_MESSAGES
            elif not self._answered:
                status = NO_MESSAGE
        super()._settle(status, cause)


class StreamedResponse(Call):
    """A call whose responses are read one by one: by `async for`, or by `read`."""

    def __init__(self, stream: EagerStream, *, wait_for_ready: bool) -> None:
        super().__init__(stream, wait_for_ready=wait_for_ready)
        self._reading: bool | None = None  # by `read`, or not
        self._answered = False

    def __aiter__(self) -> _Responses:
        if self._reading:
            raise aio().UsageError(_STYLES)
        self._reading = False
        return _Responses(self)

    async def read(self) -> Any:
        """The next response; `grpc.aio.EOF` at the end.

        Raises:
            grpc.aio.AioRpcError: The status is not OK.
        """
        if self._reading is False:
            raise aio().UsageError(_STYLES)
        self._reading = True
        return await self.next_response()

    async def next_response(self) -> Any:
        """The next response, or `grpc.aio.EOF`, whoever asks."""
        try:
            await self._wait_begun()
            while self._status is None:
                messages: Any = self._stream.messages
                if messages is None:  # It is being made again.
                    await self._wait_begun()
                    continue
                response = messages.take_message(object)
                if messages.packed is not None:
                    response = await messages.unpack(object)
                if response is not None:
                    self._answered = True
                    self._advance()
                    await messages.after_message()
                    return response
                if messages.buffer.eof:
                    self._give_up(self._truncated())
                else:
                    await messages.wait_received()
        except anyio.get_cancelled_exc_class():
            self.cancel()
            raise
        except DeadlineExceeded as error:
            self._give_up(_OUT_OF_TIME, error)
        except GRPCError as error:
            self._give_up(CallStatus(error.status, error.message), error)
        self._raise_for_status()
        return aio().EOF

    def _has_answer(self) -> bool:
        return self._answered or super()._has_answer()

    def _truncated(self) -> CallStatus:
        status = self._stream.final_status()
        return _TRUNCATED if status.status is Status.OK else status


class _Responses:
    """The responses of a call, as an async iterator."""

    def __init__(self, call: StreamedResponse) -> None:
        self._call = call

    def __aiter__(self) -> _Responses:
        return self

    async def __anext__(self) -> Any:
        response = await self._call.next_response()
        if response is aio().EOF:
            raise StopAsyncIteration
        return response


class StreamedRequests(Call):
    """A call whose requests are taken from an iterator, or written one by one."""

    _iterated = False
    _ended = False

    def _begin_streaming(self, requests: Any) -> None:
        self._iterated = requests is not None
        self._begin(None, requests)

    async def write(self, request: Any) -> None:
        """Send one request.

        Raises:
            grpc.aio.AioRpcError: The call has failed.
            asyncio.InvalidStateError: It is over, or `done_writing` was called.
        """
        self._check_written()
        if self._status is not None:
            raise invalid_state(_FINISHED)
        if self._ended:
            raise invalid_state(_HALF_CLOSED)
        encoded = self._encode(request)
        if encoded is not None:
            await self._send(*encoded, end=False)
        if self.done():
            self._raise_for_status()

    async def done_writing(self) -> None:
        """Say that there are no more requests; saying it again does nothing."""
        self._check_written()
        if self._status is None and not self._ended:
            self._ended = True
            await self._send(b"", b"", end=True)

    def _check_written(self) -> None:
        if self._iterated:
            raise aio().UsageError(_STYLES)

    async def _send(self, prefix: bytes, data: bytes, *, end: bool) -> None:
        try:
            await self._wait_begun()
            if self._status is None:
                messages: Any = self._stream.messages
                if data and not prefix:
                    prefix, data = await messages.pack(data)
                await messages.send(prefix, data, end_stream=end)
        except anyio.get_cancelled_exc_class():
            self.cancel()
            raise
        except GRPCError as error:
            if self._status is None:
                self.failed(error)


class UnaryUnaryCall(UnaryResponse):
    """A call with one request and one response."""

    def __init__(self, stream: EagerStream, request: Any, *, wait_for_ready: bool) -> None:
        super().__init__(stream, wait_for_ready=wait_for_ready)
        # It goes on to its end even if nobody keeps it.
        stream.find_call = lambda: self
        encoded = self._encode(request)
        if encoded is not None:
            self._begin(encoded)


class UnaryStreamCall(StreamedResponse):
    """A call with one request and a stream of responses."""

    def __init__(self, stream: EagerStream, request: Any, *, wait_for_ready: bool) -> None:
        super().__init__(stream, wait_for_ready=wait_for_ready)
        encoded = self._encode(request)
        if encoded is not None:
            self._begin(encoded)


class StreamUnaryCall(StreamedRequests, UnaryResponse):
    """A call with a stream of requests and one response."""

    def __init__(self, stream: EagerStream, requests: Any, *, wait_for_ready: bool) -> None:
        super().__init__(stream, wait_for_ready=wait_for_ready)
        if requests is not None:
            stream.find_call = lambda: self
        self._begin_streaming(requests)


class StreamStreamCall(StreamedRequests, StreamedResponse):
    """A call with streams in both directions."""

    def __init__(self, stream: EagerStream, requests: Any, *, wait_for_ready: bool) -> None:
        super().__init__(stream, wait_for_ready=wait_for_ready)
        self._begin_streaming(requests)


async def _attend(
    stream: EagerStream,
    scope: anyio.CancelScope,
    first: Encoded | None,
    requests: AsyncIterable[Any] | Iterable[Any] | None,
    wait_for_ready: bool,
    pause: float = 0.0,
) -> None:
    """Do for a call what cannot be done at once. It does not keep the call itself."""
    with scope:
        try:
            if pause:
                await anyio.sleep(pause)
            if first is not None and not first[0]:
                first = await stream.pack(first[1])
            messages = stream.messages
            if messages is None:
                messages = await stream.begin(wait_for_ready=wait_for_ready)
                messages.flush()
                stream.tell()
            if first is not None:
                await messages.send(*first, end_stream=True)
        except Exception as error:  # noqa: BLE001 - boundary: the call has failed
            call = stream.find_call()
            if call is not None:
                call.failed(error)
            return
        if requests is not None:
            await _send_all(stream, messages, requests)


async def _send_all(
    stream: EagerStream, messages: MessageChannel, requests: AsyncIterable[Any] | Iterable[Any]
) -> None:
    """Send what an iterable of the user's gives; if it fails, the call is cancelled."""
    try:
        if isinstance(requests, AsyncIterable):
            async for request in requests:
                await _send_one(stream, messages, request)
        else:
            for request in requests:
                await _send_one(stream, messages, request)
        await messages.send(b"", b"", end_stream=True)
    except GRPCError as error:  # It is over, or this request is too large.
        call = stream.find_call()
        if call is not None:
            call.failed(error)
    except Exception:  # boundary: the iterable is the user's
        logger.debug("rpc.requests.failed", exc_info=True)
        call = stream.find_call()
        if call is not None:
            call.cancel()
    finally:
        if isinstance(requests, AsyncGenerator):
            await requests.aclose()


async def _send_one(stream: EagerStream, messages: MessageChannel, request: Any) -> None:
    prefix, data = stream.encode(request)
    if not prefix:
        prefix, data = await messages.pack(data)
    await messages.send(prefix, data)


def _abandon(stream: EagerStream, attendant: anyio.CancelScope | None) -> None:
    """End a call that was dropped."""
    if attendant is not None:
        attendant.cancel()
    stream.abandon()
