"""What grpcio's and betterproto2's blocking stubs are made with: grpcio's channel, as they use it.

Their errors are grpcio's where a program has loaded it; see `_grpcio`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._interrupts import protected

from ._blocking_calls import Sender, send_all
from ._call import encoding_named
from ._eager import EagerStream
from ._grpcio import (
    FunctionCodec,
    code_of,
    encoding_of,
    plain_metadata,
    received_metadata,
    received_pairs,
    refuse_credentials,
    rpc_error,
)
from ._metadata import new_metadata
from ._status import OK, CallStatus
from .errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Self

    from pyvider_rpcplugin.http2 import HeaderBlock

    from ._blocking_calls import Driver
    from ._channel import Channel
    from ._compression import MessageEncoding
    from ._metadata import Deadline

CallT = TypeVar("CallT", bound="Call")

# How long to wait before another attempt to connect, where the caller wants one.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_CANCELLED = CallStatus(Status.CANCELLED, "Locally cancelled by application!")


class Metadatum(NamedTuple):
    """One pair of metadata."""

    key: str
    value: str | bytes


class SyncChannel:
    """Calls of a client's that starts and stops.

    Args:
        current: Gives what calls go through at the moment.
    """

    def __init__(self, current: Callable[[], Driver]) -> None:
        self._current = current

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryMultiCallable:
        """Make what generated stubs call a method through; they call this themselves.

        Args:
            method: The full path, `/package.Service/Method`.
            request_serializer: Makes octets of a request; None: it is octets.
            response_deserializer: Makes a response of octets; None: it stays octets.
        """
        return UnaryUnaryMultiCallable(
            self._current, method, request_serializer, response_deserializer
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryStreamMultiCallable:
        """As `unary_unary`, for a method whose responses are streamed."""
        return UnaryStreamMultiCallable(
            self._current, method, request_serializer, response_deserializer
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamUnaryMultiCallable:
        """As `unary_unary`, for a method whose requests are streamed."""
        return StreamUnaryMultiCallable(
            self._current, method, request_serializer, response_deserializer
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamStreamMultiCallable:
        """As `unary_unary`, for a method that streams in both directions."""
        return StreamStreamMultiCallable(
            self._current, method, request_serializer, response_deserializer
        )

    def close(self) -> None:
        """Do nothing: the connection is the client's, and ends with it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Codec(FunctionCodec):
    def encode(self, message: Any, message_type: Any) -> bytes:
        """A message's octets."""
        try:
            return super().encode(message, message_type)
        except Exception as error:
            raise GRPCError(Status.INTERNAL, "Exception serializing request!") from error


class _Compressing:
    """The channel, with a compression that one call asks for."""

    def __init__(self, channel: Channel, encoding: MessageEncoding | None) -> None:
        self._channel = channel
        self.encoding = encoding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


class MultiCallable:
    """One method of a service."""

    _cardinality: Cardinality

    def __init__(
        self,
        current: Callable[[], Driver],
        method: str | bytes,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        self._current = current
        self._method = method.decode() if isinstance(method, bytes) else method
        self._codec = _Codec(serialize, deserialize)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._method}>"

    def _call(
        self,
        kind: type[CallT],
        timeout: float | None,
        metadata: Any,
        credentials: Any,
        wait_for_ready: bool | None,
        compression: Any,
    ) -> CallT:
        refuse_credentials(credentials)
        pairs = new_metadata(plain_metadata(metadata)) if metadata else None
        driver = self._current()

        def make(channel: Channel, due: Deadline | None) -> EagerStream:
            encoding, through = channel.encoding, channel
            if compression is not None:
                encoding = encoding_named(encoding_of(compression))
                through = _Compressing(channel, encoding)  # type: ignore[assignment]
            return EagerStream(
                through, self._method, pairs, self._cardinality, due, self._codec, encoding
            )

        call = kind(driver, driver.prepare(make, timeout))
        if wait_for_ready:
            call.wait_for_ready()
        return call


class Call:
    """A call: what `grpc.Call` is, for the thread that made it and for others that look at it."""

    def __init__(self, driver: Driver, stream: EagerStream) -> None:
        self._driver = driver
        self._stream = stream
        self._status: CallStatus | None = None
        self._cause: Exception | None = None
        self._callbacks: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        status = self._status
        if status is None:
            return f"<{type(self).__name__} object>"
        return f"<{type(self).__name__} that ended with {status.status.name}: {status.message}>"

    @protected  # An interrupt would be lost in here.
    def __del__(self) -> None:
        if getattr(self, "_status", OK) is None:
            self._driver.forget(self._stream)

    # What it does.

    def wait_for_ready(self) -> None:
        """Wait until there is a connection, however often that takes."""
        stream, pause = self._stream, _FIRST_PAUSE
        while True:
            try:
                self._driver.drive(stream.channel.wait_connection(stream.due))
            except ConnectionLost as error:
                if error.exit is not None:
                    raise self.failed(error) from error
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except GRPCError as error:
                raise self.failed(error) from error
            else:
                return

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a step of it; what goes wrong is what grpcio raises."""
        try:
            return self._driver.drive(coroutine)
        except GRPCError as error:
            raise self.failed(error) from error
        except BaseException:
            self.cancel()
            raise

    def unary(self, request: Any) -> Any:
        """Make all of it where one message goes each way."""
        response = self.run(self._stream.unary(request))
        self._settle(OK)
        return response

    def begin(self, request: Any) -> None:
        """Send the one request."""
        self.run(self._stream.send_message(request, end=True))

    def begin_or_fail(self, request: Any) -> None:
        """The same; what goes wrong, who takes the responses hears."""
        try:
            self._driver.drive(self._stream.send_message(request, end=True))
        except GRPCError as error:
            self.failed(error)

    def begin_streaming(self) -> None:
        """Send the headers of streamed requests."""
        self.run(self._stream.send_request())

    def send_all(self, requests: Iterable[Any]) -> None:
        """Send all requests from this thread."""
        try:
            send_all(self._driver, self._stream, requests)
        except GRPCError as error:
            raise self.failed(error) from error
        except BaseException:
            self.cancel()
            raise

    def send_in_thread(self, requests: Iterable[Any], name: str) -> None:
        """Send all requests from a thread of their own."""
        Sender(self._driver, self._stream).start(requests, name)

    def response(self) -> Any:
        """The only response, with the end of the call."""
        return self.run(self._only_response())

    async def _only_response(self) -> Any:
        stream = self._stream
        message = await stream.recv_message()
        await stream.__aexit__(None, None, None)
        self._settle(OK)
        return message

    def finish(self) -> None:
        """See to the end of the call."""
        self.run(self._stream.recv_status())
        self._end(OK)

    def failed(self, error: GRPCError) -> Exception:
        """Note how it has failed; what is to be raised for that."""
        self._end(CallStatus(error.status, error.message, error.details), error)
        return self.error()

    def error(self) -> Exception:
        """What is raised for how it has ended."""
        return rpc_error(
            self._status or OK,
            _metadata_of(self._stream.headers),
            _metadata_of(self._stream.trailers),
            "" if self._cause is None else str(self._cause),
        )

    def _end(self, status: CallStatus, cause: Exception | None = None) -> None:
        if self._status is None:
            self._settle(status, cause)
            self._driver.forget(self._stream)

    def _settle(self, status: CallStatus, cause: Exception | None = None) -> None:
        if self._status is None:
            self._status, self._cause = status, cause
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    def _wait_end(self) -> CallStatus:
        if self._status is None:
            try:
                self.finish()
            except Exception:
                if self._status is None:
                    raise
        return self._status or OK

    # What grpcio's users ask of it.

    def code(self) -> Any:
        """Wait for the end, and give the status."""
        return code_of(self._wait_end().status)

    def details(self) -> str:
        """Wait for the end, and give the status's message."""
        return self._wait_end().message or ""

    def debug_error_string(self) -> str:
        """Wait for the end, and say where the status comes from."""
        self._wait_end()
        return "" if self._cause is None else str(self._cause)

    def initial_metadata(self) -> tuple[Metadatum, ...]:
        """Wait for what comes with the response's headers."""
        stream = self._stream
        if self._status is None and stream.initial_metadata is None:
            self.run(stream.recv_initial_metadata())
        return _pairs_of(stream.headers)

    def trailing_metadata(self) -> tuple[Metadatum, ...]:
        """Wait for what comes at the end."""
        self._wait_end()
        return _pairs_of(self._stream.trailers)

    def is_active(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._status is None

    def time_remaining(self) -> float | None:
        """Seconds until its deadline; None without one."""
        due = self._stream.due
        if due is None:
            return None

        async def ask() -> float:  # By whichever clock it counts.
            return due.time_remaining()

        return self._driver.drive(ask())

    def cancel(self) -> bool:
        """End it at once; the server is told. False if it has ended already."""
        if self._status is not None:
            return False
        error = GRPCError(_CANCELLED.status, _CANCELLED.message)
        self._settle(_CANCELLED, error)
        self._driver.drive(_fail(self._stream, error))
        return True

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Have `callback()` called at its end, in whichever thread sees that.

        Returns:
            False if it has ended: then it is not called.
        """
        if self._status is not None:
            return False
        self._callbacks.append(callback)
        return True


class Responses(Call):
    """A call with streamed responses: an iterator over them."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._status is None:
            message = self.run(self._stream.recv_message())
            if message is not None:
                return message
            self.finish()
        if self._status is not None and self._status.status is not Status.OK:
            raise self.error() from self._cause
        raise StopIteration


class CallFuture(Call):
    """A call with one response that runs on in a thread of its own: what `grpc.Future` is."""

    def __init__(self, driver: Driver, stream: EagerStream) -> None:
        super().__init__(driver, stream)
        self._response: Any = None
        self._failure: Exception | None = None
        self._over = threading.Event()
        self._done_callbacks: list[Callable[[Any], object]] = []
        self._lock = threading.Lock()

    def start(self, step: Callable[[CallFuture], Any], name: str) -> None:
        """Run the call in a thread."""
        threading.Thread(
            target=self._run, args=(step,), name=f"call of {name}", daemon=True
        ).start()

    def _run(self, step: Callable[[CallFuture], Any]) -> None:
        try:
            self._response = step(self)
        except Exception as error:  # noqa: BLE001 - boundary: it is for who asks for the result
            self._failure = error
        with self._lock:
            self._over.set()
        for callback in self._done_callbacks:
            callback(self)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response.

        Raises:
            TimeoutError: It has not come in time. The call goes on.
            grpc.RpcError: The call has failed.
        """
        self._wait(timeout)
        if self._failure is not None:
            raise self._failure
        return self._response

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait for the end, and give what `result` raises; None if it raises nothing."""
        self._wait(timeout)
        return self._failure

    def traceback(self, timeout: float | None = None) -> Any:
        """Wait for the end, and give the traceback of what `result` raises."""
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def _wait(self, timeout: float | None) -> None:
        if not self._over.wait(timeout):
            msg = f"the call has not ended within {timeout} s"
            raise TimeoutError(msg)

    def _wait_end(self) -> CallStatus:
        self._over.wait()
        return self._status or OK

    def initial_metadata(self) -> tuple[Metadatum, ...]:
        """Wait for the end, and give what came with the response's headers."""
        self._over.wait()
        return _pairs_of(self._stream.headers)

    def done(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._over.is_set()

    def cancelled(self) -> bool:
        """Whether `cancel` has ended it."""
        return self._status is _CANCELLED

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(future)` called at its end, in its thread; at once if it has ended."""
        with self._lock:
            if not self._over.is_set():
                self._done_callbacks.append(callback)
                return
        callback(self)


class UnaryUnaryMultiCallable(MultiCallable):
    """A method with one request and one response."""

    _cardinality = Cardinality.UNARY_UNARY

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """Call it, and give the response.

        Args:
            request: The request.
            timeout: Seconds that it may take.
            metadata: What is sent with it: pairs of a key and a value.
            credentials: None: they are not supported.
            wait_for_ready: Whether to go on trying while there is no connection.
            compression: A `grpc.Compression` for the request.

        Raises:
            grpc.RpcError: The call has failed.
        """
        call = self._call(Call, timeout, metadata, credentials, wait_for_ready, compression)
        return call.unary(request)

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> tuple[Any, Call]:
        """Call it, and give the response and the call."""
        call = self._call(Call, timeout, metadata, credentials, wait_for_ready, compression)
        call.begin(request)
        return call.response(), call

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallFuture:
        """Begin a call, and give its future."""
        call = self._call(CallFuture, timeout, metadata, credentials, wait_for_ready, compression)

        def step(call: CallFuture) -> Any:
            call.begin(request)
            return call.response()

        call.start(step, self._method)
        return call


class UnaryStreamMultiCallable(MultiCallable):
    """A method with one request and streamed responses."""

    _cardinality = Cardinality.UNARY_STREAM

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Responses:
        """Call it, and iterate over the responses."""
        call = self._call(Responses, timeout, metadata, credentials, wait_for_ready, compression)
        call.begin_or_fail(request)
        return call


class StreamUnaryMultiCallable(MultiCallable):
    """A method with streamed requests and one response."""

    _cardinality = Cardinality.STREAM_UNARY

    def __call__(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """Call it, and give the response."""
        return self.with_call(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )[0]

    def with_call(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> tuple[Any, Call]:
        """Call it, and give the response and the call."""
        call = self._call(Call, timeout, metadata, credentials, wait_for_ready, compression)
        call.begin_streaming()
        call.send_all(request_iterator)
        return call.response(), call

    def future(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallFuture:
        """Begin a call, and give its future."""
        call = self._call(CallFuture, timeout, metadata, credentials, wait_for_ready, compression)

        def step(call: CallFuture) -> Any:
            call.begin_streaming()
            call.send_all(request_iterator)
            return call.response()

        call.start(step, self._method)
        return call


class StreamStreamMultiCallable(MultiCallable):
    """A method that streams in both directions."""

    _cardinality = Cardinality.STREAM_STREAM

    def __call__(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Responses:
        """Call it, and iterate over the responses; the requests are taken in another thread."""
        call = self._call(Responses, timeout, metadata, credentials, wait_for_ready, compression)
        call.begin_streaming()
        call.send_in_thread(request_iterator, self._method)
        return call


async def _fail(stream: EagerStream, error: Exception) -> None:
    if stream.messages is not None:
        stream.fail(error)


def _pairs_of(block: HeaderBlock | None) -> tuple[Metadatum, ...]:
    if block is None:
        return ()
    return tuple(Metadatum(key, value) for key, value in received_pairs(block.fields))


def _metadata_of(block: HeaderBlock | None) -> Any:
    return received_metadata(() if block is None else block.fields)
