"""A call with one message each way, by a thread, as fast as it goes.

What is usual, it does in one go: the request leaves in one write, and what comes in is only noted
until all of it is there. Whatever is unusual (a large message, an error, a limit, an interceptor) it
leaves to a `ClientStream`, which is then told what has come so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Cardinality, Status

from pyvider_rpcplugin.http2 import ErrorCode

from ._blocking_waits import ThreadWaiter
from ._call import decode_message, encode_message
from ._client_stream import ClientStream, response_head, trailers_of
from ._messages import PREFIX_SIZE
from ._status import status_of_error

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from grpclib.metadata import _Metadata as Metadata

    from pyvider_rpcplugin.http2 import H2Stream, HeaderBlock, StreamReset

    from ._blocking import BlockingChannel
    from ._blocking_connection import BlockingConnection
    from ._blocking_waits import BlockingDeadline

# Larger messages are under flow control for longer than it takes to note them.
_LARGEST = 16_384
_OK = Status.OK


class UnaryCall(ThreadWaiter):
    """One call: what its thread waits with, and what its stream's events concern."""

    __slots__ = (
        "_channel",
        "_chunks",
        "_events",
        "_message",
        "_metadata",
        "_name",
        "_reply_type",
        "_request_type",
        "_size",
        "headers",
        "trailers",
    )

    def __init__(
        self,
        channel: BlockingChannel,
        name: str,
        types: tuple[Any, Any],
        message: Any,
        metadata: Metadata | None,
        due: BlockingDeadline | None,
    ) -> None:
        super().__init__(channel, due)
        self._channel = channel
        self._name = name
        self._request_type, self._reply_type = types
        self._message = message
        self._metadata = metadata
        self._chunks: list[bytes | memoryview] = []
        self._size = 0
        self._events: list[Callable[[ClientStream[Any, Any]], None]] = []
        self.headers: HeaderBlock | None = None
        self.trailers: HeaderBlock | None = None

    # --- what the connection reports ---------------------------------------------------------

    def on_headers(self, headers: HeaderBlock, *, end_stream: bool) -> None:
        """The response's header section came."""
        self.headers = headers
        if end_stream:
            self.trailers = headers
            self.wake()

    def on_data(self, data: bytes | memoryview, *, end_stream: bool) -> None:
        """Content came."""
        self._chunks.append(data)
        self._size += len(data)
        if end_stream or self._size > _LARGEST:
            if end_stream:
                self._events.append(lambda call: call.on_data(b"", end_stream=True))
            self.wake()

    def on_trailers(self, headers: HeaderBlock) -> None:
        """The trailer section came."""
        self.trailers = headers
        self.wake()

    def on_reset(self, event: StreamReset) -> None:
        """The stream ended early."""
        self._events.append(lambda call: call.on_reset(event))
        self.wake()

    def on_window(self) -> None:
        """More may be sent: all was."""

    def on_lost(self, error: Exception) -> None:
        """The connection is gone."""
        self._events.append(lambda call: call.on_lost(error))
        self.wake()

    # --- the call ----------------------------------------------------------------------------

    def run(self) -> Any:
        """Make the call; the channel's lock is held.

        Raises:
            GRPCError: It has failed.
            DeadlineExceeded: The deadline passed.
        """
        channel = self._channel
        codec = channel.codec
        prefix, data = encode_message(
            self._message, self._request_type, codec, channel.options.max_send_message_size, None
        )
        found: Any = channel.connection_now()
        size = len(data) + PREFIX_SIZE
        if found is None or size > _LARGEST or not _has_room(found, size):
            return run_now(self._general().unary(self._message))
        connection: BlockingConnection = found
        h2 = connection.h2
        block = channel.request_block(
            self._name, self.due, self._metadata, h2.remote.max_header_list_size
        )
        counts = channel.counts
        counts.started += 1
        stream = h2.send_request(block)
        stream.owner = self
        h2.send_data(stream, prefix + data, end_stream=True)
        connection.flush()
        self.place = connection
        try:
            connection.block(self)
        except BaseException as error:
            counts.end(status_of_error(error).status)
            _end(connection, stream)
            channel.stream_closed()
            raise
        reply = self._usual_reply()
        if reply is None:
            return run_now(self._general().resume(found, stream, self._replay))
        counts.succeeded += 1
        _end(connection, stream)
        channel.stream_closed()
        return decode_message(codec, reply, self._reply_type)

    def _usual_reply(self) -> bytes | None:
        """The reply's octets, if all of it is here and nothing about it is unusual."""
        headers, trailers = self.headers, self.trailers
        if headers is None or trailers is None or trailers is headers or self._events:
            return None
        head = response_head(headers)
        if head.status is not None or head.encoding is not None:
            return None
        if trailers_of(trailers).status.status is not _OK:
            return None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        size = self._size - PREFIX_SIZE
        if size < 0 or data[0] or int.from_bytes(data[1:PREFIX_SIZE], "big") != size:
            return None
        limit = self._channel.options.max_receive_message_size
        return bytes(data[PREFIX_SIZE:]) if limit < 0 or size <= limit else None

    def _general(self) -> ClientStream[Any, Any]:
        return ClientStream(
            self._channel,
            self._name,
            self._metadata,
            Cardinality.UNARY_UNARY,
            self._request_type,
            self._reply_type,
            self.due,
        )

    def _replay(self, call: ClientStream[Any, Any]) -> None:
        """Tell `call` what has come so far."""
        headers, trailers = self.headers, self.trailers
        if headers is not None:
            call.on_headers(headers, end_stream=headers is trailers)
        for chunk in self._chunks:
            call.on_data(chunk, end_stream=False)
        if trailers is not None and trailers is not headers:
            call.on_trailers(trailers)
        for tell in self._events:
            tell(call)


def _has_room(connection: BlockingConnection, size: int) -> bool:
    """Whether a message of this size can leave at once."""
    h2 = connection.h2
    return connection.has_room and h2.send_window >= size <= h2.remote.initial_window_size


def _end(connection: BlockingConnection, stream: H2Stream) -> None:
    """Be done with a stream: end it if it goes on, and give back what came."""
    h2 = connection.h2
    stream.owner = None
    if not stream.closed:
        h2.reset_stream(stream, ErrorCode.CANCEL)
    if stream.unconsumed:
        h2.release(stream)
    if h2.output_size:
        connection.flush()


def run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing but threads, to its end.

    Raises:
        RuntimeError: It waits for something else.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    msg = "a blocking call awaited something that only an event loop can wait for"
    raise RuntimeError(msg)
