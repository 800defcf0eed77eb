"""What grpcio's generated stubs call methods through: `grpc.aio`'s multi-callables, on our channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from grpclib.const import Cardinality

from ._call import encoding_named
from ._eager import (
    Call,
    EagerStream,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from ._grpcio import FunctionCodec, encoding_of, introduce, plain_metadata, refuse_credentials
from ._metadata import new_metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

    from ._channel import Channel


CallT = TypeVar("CallT", bound=Call)


class MultiCallable:
    """One method of a service.

    Args:
        channel: Where its calls go.
        method: Its full path.
        serialize: Makes octets of a request; None: it is octets.
        deserialize: Makes a response of octets; None: it stays octets.
    """

    _cardinality: Cardinality
    _call_type: type[Any]

    def __init__(
        self,
        channel: Channel,
        method: str | bytes,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        self._channel = channel
        self._method = method.decode() if isinstance(method, bytes) else method
        self._codec = FunctionCodec(serialize, deserialize)
        # Whether its calls do no harm when they are made again.
        self.idempotent: bool = False
        introduce(type(self), self._call_type)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._method}>"

    def _stream(
        self, timeout: float | None, metadata: Any, credentials: Any, compression: Any
    ) -> EagerStream:
        refuse_credentials(credentials)
        channel = self._channel
        encoding = channel.encoding
        if compression is not None:
            encoding = encoding_named(encoding_of(compression))
        stream = EagerStream(
            channel,
            self._method,
            new_metadata(plain_metadata(metadata)) if metadata else None,
            self._cardinality,
            channel.due_of(timeout, None),
            self._codec,
            encoding,
        )
        if self.idempotent:
            from ._retry import Attempts  # noqa: PLC0415 - few are

            stream.attempts = Attempts()
        return stream


class UnaryRequestMultiCallable(MultiCallable, Generic[CallT]):
    """A method with one request."""

    _call_type: type[CallT]

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallT:
        """Begin a call.

        Args:
            request: The request.
            timeout: Seconds that it may take.
            metadata: What is sent with it: pairs of a key and a value.
            credentials: None: they are not supported.
            wait_for_ready: Whether to go on trying while there is no connection.
            compression: A `grpc.Compression` for the request.

        Raises:
            ProtocolError: It was given credentials.
            TypeError: The metadata is none.
        """
        stream = self._stream(timeout, metadata, credentials, compression)
        make: Callable[..., CallT] = self._call_type
        return make(stream, request, wait_for_ready=bool(wait_for_ready))


class StreamRequestMultiCallable(MultiCallable, Generic[CallT]):
    """A method with a stream of requests."""

    _call_type: type[CallT]

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallT:
        """Begin a call.

        Args:
            request_iterator: The requests, async or not; None: they are written with `write()`.
            timeout: Seconds that it may take.
            metadata: What is sent with it: pairs of a key and a value.
            credentials: None: they are not supported.
            wait_for_ready: Whether to go on trying while there is no connection.
            compression: A `grpc.Compression` for the requests.

        Raises:
            ProtocolError: It was given credentials.
            TypeError: The metadata is none.
        """
        stream = self._stream(timeout, metadata, credentials, compression)
        make: Callable[..., CallT] = self._call_type
        return make(stream, request_iterator, wait_for_ready=bool(wait_for_ready))


class UnaryUnaryMultiCallable(UnaryRequestMultiCallable[UnaryUnaryCall]):
    """A method with one request and one response, which awaiting the call gives."""

    _cardinality = Cardinality.UNARY_UNARY
    _call_type = UnaryUnaryCall


class UnaryStreamMultiCallable(UnaryRequestMultiCallable[UnaryStreamCall]):
    """A method with one request and a stream of responses."""

    _cardinality = Cardinality.UNARY_STREAM
    _call_type = UnaryStreamCall


class StreamUnaryMultiCallable(StreamRequestMultiCallable[StreamUnaryCall]):
    """A method with a stream of requests and one response, which awaiting the call gives."""

    _cardinality = Cardinality.STREAM_UNARY
    _call_type = StreamUnaryCall


class StreamStreamMultiCallable(StreamRequestMultiCallable[StreamStreamCall]):
    """A method with streams in both directions."""

    _cardinality = Cardinality.STREAM_STREAM
    _call_type = StreamStreamCall
