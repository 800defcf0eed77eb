"""The client's side of one call, with the methods and properties of `grpclib.client.Stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError

from pyvider_rpcplugin.http2 import ErrorCode, HeaderBlock, StreamReset

from ._call import encode_message, encoding_named
from ._codecs import content_type, subtype_of
from ._metadata import decode_metadata, new_metadata
from ._status import (
    DETAILS_KEY,
    CallStatus,
    status_from_http,
    status_from_reset,
    status_from_trailers,
    status_of_error,
)
from .errors import CallRefused, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from grpclib.client import Stream as _Base
    from grpclib.encoding.base import CodecBase
    from grpclib.metadata import _Metadata as Metadata
    from grpclib.protocol import Peer as PeerBase

    from pyvider_rpcplugin.http2 import H2Stream

    from ._call import MessageChannel
    from ._channel import Channel
    from ._compression import MessageEncoding
    from ._connection import RPCConnection
    from ._metadata import Deadline
else:
    _Base = Generic

SendT = TypeVar("SendT")
RecvT = TypeVar("RecvT")


class ResponseHead:
    """What a response's header section says; kept with the block, so it is read once."""

    __slots__ = ("encoding", "has_metadata", "status")

    def __init__(self, block: HeaderBlock) -> None:
        fields = dict(block.fields)
        self.encoding = fields.get("grpc-encoding")
        self.has_metadata = bool(decode_metadata(block.fields))
        http_status = block.pseudo[":status"]
        self.status: CallStatus | None = None
        if "grpc-status" in fields:
            return  # That says more than HTTP does.
        if http_status != "200":
            self.status = status_from_http(http_status)
        elif subtype_of(fields.get("content-type", "")) is None:
            said = fields.get("content-type", "none")[:100]
            self.status = CallStatus(
                Status.UNKNOWN, f"the response is none of gRPC's: its content-type is {said}"
            )


class _Trailers:
    """What a trailer section says, likewise; details are decoded for each call."""

    __slots__ = ("has_details", "has_metadata", "status")

    def __init__(self, block: HeaderBlock) -> None:
        self.has_metadata = bool(decode_metadata(block.fields))
        self.has_details = any(name == DETAILS_KEY for name, _ in block.fields)
        self.status = status_from_trailers(block.fields, None)


def response_head(block: HeaderBlock) -> ResponseHead:
    """What `block` says."""
    parsed = block.parsed
    if not isinstance(parsed, ResponseHead):
        block.parsed = parsed = ResponseHead(block)
    return parsed


def trailers_of(block: HeaderBlock) -> _Trailers:
    """What it says, read once."""
    parsed = block.parsed
    if not isinstance(parsed, _Trailers):
        block.parsed = parsed = _Trailers(block)
    return parsed


_OK = Status.OK
# What has been counted of a call: nothing, its beginning, its end.
_NEW, _BEGUN, _ENDED = range(3)
# A larger request is not kept for another attempt.
LARGEST_KEPT = 1 << 20
NO_MESSAGE = CallStatus(
    Status.INTERNAL, "the server answered OK without the one message that the method returns"
)
TOO_MANY_MESSAGES = CallStatus(
    Status.INTERNAL, "the server sent more than the one message that the method returns"
)


class ClientStream(_Base[SendT, RecvT]):
    """One call, used as `async with`.

    Leaving the block waits for the end of the call and raises `GRPCError` if its status is not
    OK. A call that is left before its end, by an exception, by cancellation, or because nobody
    wants the rest of its stream, is reset at once, so that the server stops working on it.

    Attributes:
        initial_metadata: What came with the response headers; None before.
        trailing_metadata: What came at the end; None before.
        peer: Who answers; None before the request is sent.

    Cancellation:
        Every method may be cancelled; the call is then over, and no other call notices.
    """

    __slots__ = (
        "_cancelled",
        "_cardinality",
        "_due",
        "_end_said",
        "_ended",
        "_headers",
        "_message_received",
        "_message_sent",
        "_messages",
        "_method_name",
        "_observers",
        "_own_codec",
        "_owner",
        "_recv_type",
        "_refused",
        "_request",
        "_request_metadata",
        "_send_type",
        "_stage",
        "_status",
        "_trailer_block",
        "_trailers_asked",
        "initial_metadata",
        "peer",
        "trailing_metadata",
    )

    def __init__(
        self,
        channel: Channel,
        method_name: str,
        metadata: Metadata | None,
        cardinality: Cardinality,
        send_type: type[SendT],
        recv_type: type[RecvT],
        deadline: Deadline | None,
        codec: CodecBase | None = None,
    ) -> None:
        self._owner = channel
        self._own_codec: CodecBase | None = codec
        self._method_name = method_name
        self._request_metadata = metadata
        self._cardinality = cardinality
        self._send_type = send_type
        self._recv_type = recv_type
        self._due = deadline
        self._messages: MessageChannel | None = None
        self._headers: HeaderBlock | None = None
        self._trailer_block: HeaderBlock | None = None
        self._status: CallStatus | None = None
        self._message_sent = False
        self._message_received = False
        self._ended = False
        self._end_said = False
        self._cancelled = False
        self._trailers_asked = False
        self._refused = False
        self._request: tuple[bytes, bytes] | None = None
        self._observers: list[Callable[[CallStatus], object]] | None = None
        self._stage = _NEW
        self.initial_metadata: Metadata | None = None
        self.trailing_metadata: Metadata | None = None
        self.peer: PeerBase | None = None

    @property
    def deadline(self) -> Deadline | None:
        """By when the call must be complete; None: whenever."""
        return self._due

    @property
    def metadata(self) -> Metadata:
        """What is sent with the request."""
        if self._request_metadata is None:
            self._request_metadata = new_metadata()
        return self._request_metadata

    # --- what the connection reports ---------------------------------------------------------

    def on_headers(self, headers: HeaderBlock, *, end_stream: bool) -> None:
        """The response's header section came."""
        self._headers = headers
        if end_stream:
            self._trailer_block = headers
            self._finished()
        elif response_head(headers).status is None:
            self._open_messages.wake_receiver()
        else:  # It is none of gRPC's, whatever may follow.
            self._listens_no_more()
            self._open_messages.wake_receiver()

    def on_data(self, data: bytes | memoryview, *, end_stream: bool) -> None:
        """Content came."""
        self._open_messages.on_data(data, end_stream=end_stream)
        if end_stream:
            self._listens_no_more()

    def on_trailers(self, headers: HeaderBlock) -> None:
        """The trailer section came."""
        self._trailer_block = headers
        self._finished()

    def on_reset(self, event: StreamReset) -> None:
        """The stream ended early."""
        if self._trailer_block is not None:
            return  # The answer is complete: this only says that no more requests are wanted.
        status = status_from_reset(event.code, event.reason)
        if event.refused:  # The server has not begun with it, and will not.
            self._open_messages.fail(CallRefused(event.reason))
            self._owner.stream_closed()
            return
        if (
            status.status is Status.CANCELLED
            and self._due is not None
            and self._due.time_remaining() <= 0
        ):
            status = CallStatus(Status.DEADLINE_EXCEEDED, event.reason)
        self._open_messages.fail(self._error_of(status))
        self._owner.stream_closed()

    def on_window(self) -> None:
        """More may be sent."""
        self._open_messages.on_window()

    def on_lost(self, error: Exception) -> None:
        """The connection is gone."""
        if self._trailer_block is None:
            self._open_messages.fail(error)

    def _finished(self) -> None:
        self._listens_no_more()
        self._open_messages.on_end()

    def _listens_no_more(self) -> None:
        """Let who still sends learn that the answer is here already."""
        messages = self._open_messages
        messages.unwanted = True
        messages.on_window()
        self._owner.stream_closed()  # Another call may have the place.

    def _error_of(self, status: CallStatus) -> GRPCError:
        """What is raised for a status that is not OK."""
        if status.status is Status.DEADLINE_EXCEEDED and self._due is not None:
            # The server's clock was a little faster than ours: the same to the caller.
            return DeadlineExceeded(status.message, status.details)
        return GRPCError(status.status, status.message, status.details)

    def _raise_unless_ok(self, status: CallStatus) -> None:
        if status.status is not Status.OK:
            raise self._error_of(status)

    @property
    def _open_messages(self) -> MessageChannel:
        if self._messages is None:
            msg = "Request was not sent yet"
            raise ProtocolError(msg)
        return self._messages

    # --- sending -----------------------------------------------------------------------------

    async def send_request(self, *, end: bool = False) -> None:
        """Send the request's headers; `send_message` does it where it was not done.

        Args:
            end: Whether no message will follow (streamed requests only).

        Raises:
            GRPCError: UNAVAILABLE, there is no connection and none can be made.
            DeadlineExceeded: The deadline passed before the call could begin.
            ProtocolError: The method was called at the wrong time.
        """
        if end and not self._cardinality.client_streaming:
            msg = "Unary request requires a message to be sent before ending outgoing stream"
            raise ProtocolError(msg)
        await self._begin(end=end)
        self._ended = self._end_said = end
        self._open_messages.flush()

    def _check_unsent(self) -> None:
        if self._messages is not None:
            msg = "Request is already sent"
            raise ProtocolError(msg)

    async def _begin(self, *, end: bool = False) -> None:
        """Open the stream; whoever calls it flushes, without an await in between."""
        self._check_unsent()
        channel = self._owner
        if channel.interceptors or channel.events.active:
            await self._announce()
        connection = channel.connection_now() or await channel.wait_connection(self._due)
        self._check_unsent()  # Another task may have done it meanwhile.
        self._open(connection, end=end, encoding=channel.encoding)

    async def _announce(self) -> None:
        """Let interceptors and listeners see the call, and change what they like."""
        channel = self._owner
        if channel.interceptors:
            from ._interceptors import InterceptedCall, intercept  # noqa: PLC0415 - as they are there

            call = InterceptedCall(
                self._method_name,
                self._cardinality,
                self.metadata,
                self._due,
                None,
                channel.deadline_type,
            )
            observers: list[Callable[[CallStatus], object]] = []
            self._observers = observers
            await intercept(channel.interceptors, call, observers)
            self._request_metadata, self._due = call.metadata, call.deadline
        if channel.events.active:
            (metadata,) = await channel.events.send_request(
                self.metadata,
                method_name=self._method_name,
                deadline=self._due,
                content_type=content_type(self._own_codec or channel.codec),
            )
            self._request_metadata = metadata

    def _tell_observers(self, error: BaseException | None) -> None:
        """The call is over: tell those who want to know how it ended."""
        from ._interceptors import notify  # noqa: PLC0415 - as they are there

        notify(self._observers or [], self._status_at_end(error))

    def _status_at_end(self, error: BaseException | None) -> CallStatus:
        """How a call has ended that is left with this exception, or without one."""
        messages = self._messages
        if isinstance(error, GRPCError) or messages is None:
            return status_of_error(error)
        if self._status is not None:
            return self._status
        if messages.failure is not None:
            return status_of_error(messages.failure)
        if self._trailer_block is not None:
            return self._final_status()
        if self._due is not None and self._due.time_remaining() <= 0:
            return CallStatus(Status.DEADLINE_EXCEEDED, "the deadline of the call has passed")
        return status_of_error(error)

    def _count_end(self, error: BaseException | None) -> None:
        """Count the end of the call, unless it has never begun."""
        if self._stage is not _NEW or error is not None:
            self.count_end_as(self._status_at_end(error))

    def count_end_as(self, status: CallStatus) -> None:
        """Count the end of the call, begun or not."""
        if self._stage is not _ENDED:
            self._owner.counts.started += self._stage is _NEW
            self._stage = _ENDED
            self._owner.counts.end(status.status)

    def count_apart(self) -> Self:
        """Leave it out of the numbers of the application's calls; before it begins."""
        self._stage = _ENDED
        return self

    def _open(
        self, connection: RPCConnection, *, end: bool, encoding: MessageEncoding | None
    ) -> MessageChannel:
        channel = self._owner
        if self._stage is _NEW:
            self._stage = _BEGUN
            channel.counts.started += 1
        codec = self._own_codec or channel.codec
        block = channel.request_block(
            self._method_name,
            self._due,
            self._request_metadata,
            connection.h2.remote.max_header_list_size,
            None if codec is channel.codec else codec.__content_subtype__,
            encoding,
        )
        stream = connection.h2.send_request(block, end_stream=end)
        stream.owner = self
        messages = channel.message_channel(connection, stream, codec, self._due)
        messages.encoding_out = encoding
        self._messages = messages
        self.peer = connection.peer
        return messages

    async def send_message(self, message: SendT, *, end: bool = False) -> None:
        """Send one message.

        Args:
            message: An instance of the method's request type.
            end: Whether it is the last one. A unary request's always is.

        Raises:
            GRPCError: The call has failed already; or RESOURCE_EXHAUSTED, the message is too large.
            DeadlineExceeded: The deadline passed.
            ProtocolError: The method was called at the wrong time.
        """
        if not self._cardinality.client_streaming:
            if self._message_sent:
                msg = "Message was already sent"
                raise ProtocolError(msg)
        elif self._ended:
            msg = "Stream is ended"
            raise ProtocolError(msg)
        channel = self._owner
        if channel.events.active:
            (message,) = await channel.events.send_message(message)
        encoded = encode_message(
            message,
            self._send_type,
            self._own_codec or channel.codec,
            channel.options.max_send_message_size,
            channel.encoding,
        )
        if not encoded[0]:
            encoded = await self._pack(encoded[1])
        last = end or not self._cardinality.client_streaming
        if not self._cardinality.client_streaming and len(encoded[1]) <= LARGEST_KEPT:
            self._request = encoded
        if self._messages is None:
            await self._begin()
        try:
            await self._open_messages.send(*encoded, end_stream=last)
        except CallRefused as error:
            await self._begin_again(error)
        if self._open_messages.unwanted and self._cardinality.client_streaming:
            # The server answered before it had heard everything. If it refused, that is the news.
            self._raise_unless_ok(self._final_status())
        self._message_sent = True
        self._ended = last
        self._end_said = end

    async def _pack(self, data: bytes) -> tuple[bytes, bytes]:
        """A large message as it is sent, compressed."""
        if self._messages is not None:
            return await self._messages.pack(data)
        channel = self._owner
        encoding: Any = channel.encoding
        packed = await channel.message_channel.pack_message(encoding, data, self._due)
        self._check_unsent()  # Another task may have begun the call meanwhile.
        return packed

    async def _begin_again(self, error: GRPCError) -> None:
        """Make another attempt at a call with one request, if the server has certainly not begun.

        It does that once. Interceptors and listeners have seen the call already.

        Raises:
            GRPCError: `error`, if it may not be made again, or what the other attempt fails with.
        """
        if self._refused or self._request is None or not isinstance(error, CallRefused):
            raise error
        self._refused = True
        await self._attempt(self._request)

    async def _attempt(self, request: tuple[bytes, bytes]) -> None:
        """Forget what has come of the call, and make it once more."""
        messages, self._messages = self._messages, None
        if messages is not None:
            messages.close()
            self._owner.stream_closed()
        self._headers = self._trailer_block = self._status = None
        self.initial_metadata = self.trailing_metadata = None
        channel = self._owner
        connection = channel.connection_now() or await channel.wait_connection(self._due)
        self._open(connection, end=False, encoding=channel.encoding)
        await self._open_messages.send(*request, end_stream=True)

    async def end(self) -> None:
        """Say that no message will follow (streamed requests only).

        Raises:
            GRPCError: The call has failed already.
            ProtocolError: The method was called at the wrong time.
        """
        messages = self._messages
        if messages is None:
            msg = "Request was not sent"
            raise ProtocolError(msg)
        if self._end_said:
            msg = "Stream was already ended"
            raise ProtocolError(msg)
        if self._ended:  # A unary request's message has done it.
            self._end_said = True
            return
        if not self._cardinality.client_streaming:
            msg = "Unary request requires a single message to be sent"
            raise ProtocolError(msg)
        await messages.send(b"", b"", end_stream=True)
        self._ended = self._end_said = True

    # --- receiving ---------------------------------------------------------------------------

    async def recv_initial_metadata(self) -> None:
        """Wait for the response's headers; afterwards `initial_metadata` is there.

        Raises:
            GRPCError: The call has failed.
            DeadlineExceeded: The deadline passed.
            ProtocolError: The method was called at the wrong time.
        """
        if self.initial_metadata is not None:
            msg = "Initial metadata was already received"
            raise ProtocolError(msg)
        messages = self._open_messages
        while self._headers is None:
            failure = messages.failure
            if failure is None:
                await messages.wait_received()
            elif isinstance(failure, GRPCError):
                await self._begin_again(failure)
                messages = self._open_messages
            else:
                raise failure
        await self._take_headers(self._headers)

    async def _take_headers(self, block: HeaderBlock) -> None:
        head = response_head(block)
        if head.status is not None:
            raise self._give_up(head.status)
        metadata = new_metadata()
        trailers_only = block is self._trailer_block
        if head.has_metadata and not trailers_only:
            metadata = decode_metadata(block.fields)
        events = self._owner.events
        if events.active:
            (metadata,) = await events.recv_initial_metadata(metadata)
        self.initial_metadata = metadata
        if trailers_only:
            self._raise_unless_ok(await self._take_trailers())
        elif head.encoding is not None:
            try:
                self._open_messages.encoding_in = encoding_named(head.encoding)
            except GRPCError as error:
                raise self._give_up(CallStatus(Status.INTERNAL, error.message)) from None

    async def recv_message(self) -> RecvT | None:
        """The next message; None at the end of the stream.

        Raises:
            GRPCError: The call has failed. For a streamed response a status that is not OK is
                raised by `recv_trailing_metadata`, or at the end of the block.
            DeadlineExceeded: The deadline passed.
        """
        if self.initial_metadata is None:
            await self.recv_initial_metadata()
        messages = self._open_messages
        while True:
            try:
                message = messages.take_message(self._recv_type)
                if messages.packed is not None:
                    message = await messages.unpack(self._recv_type)
            except GRPCError as error:
                self._give_up(CallStatus(error.status, error.message))
                raise
            if message is not None:
                break
            if messages.failure is not None:
                raise messages.failure
            if messages.buffer.eof:
                await self._at_end()
                return None
            await messages.wait_received()
        events = self._owner.events
        if events.active:
            (message,) = await events.recv_message(message)
        self._message_received = True
        await messages.after_message()
        return message  # type: ignore[no-any-return]

    def _give_up(self, status: CallStatus) -> GRPCError:
        """End the call with a status of our own; return what whoever goes on with it gets."""
        error = self._error_of(status)
        self._status = status
        self._open_messages.reset(ErrorCode.CANCEL)
        self._open_messages.fail(error)
        return error

    async def _at_end(self) -> None:
        if self._open_messages.buffer.partial:
            # The status says why, if it is not OK.
            self._raise_unless_ok(self._final_status())
            message = "the response ended in the middle of a message"
            raise self._give_up(CallStatus(Status.INTERNAL, message))
        if not self._cardinality.server_streaming and not self._message_received:
            self._raise_unless_ok(await self._take_trailers())
            raise self._give_up(NO_MESSAGE)

    async def recv_trailing_metadata(self) -> None:
        """Wait for the end of the call; afterwards `trailing_metadata` is there.

        Raises:
            GRPCError: The status of the call is not OK.
            DeadlineExceeded: The deadline passed.
            ProtocolError: The method was called at the wrong time.
        """
        if not self._ended:
            msg = "Outgoing stream was not ended"
            raise ProtocolError(msg)
        if self.initial_metadata is None:
            msg = "Initial metadata was not received before waiting for trailing metadata"
            raise ProtocolError(msg)
        if self._trailers_asked:
            msg = "Trailing metadata was already received"
            raise ProtocolError(msg)
        await self._wait_end()
        self._trailers_asked = True
        self._raise_unless_ok(await self._take_trailers())

    async def _wait_end(self) -> None:
        messages = self._open_messages
        while self._trailer_block is None and not messages.buffer.eof:
            if messages.failure is not None:
                raise messages.failure
            await messages.wait_received()

    async def _take_trailers(self) -> CallStatus:
        """Make the status and the trailing metadata of what has come."""
        self._status = status = self._final_status()
        if self.trailing_metadata is not None:
            return status
        block = self._trailer_block
        metadata = new_metadata()
        if block is not None and trailers_of(block).has_metadata:
            metadata = decode_metadata(block.fields)
        events = self._owner.events
        if events.active:
            (metadata,) = await events.recv_trailing_metadata(
                metadata,
                status=status.status,
                status_message=status.message,
                status_details=status.details,
            )
        self.trailing_metadata = metadata
        return status

    def _final_status(self) -> CallStatus:
        """The status that what has come makes."""
        if self._status is not None:
            return self._status
        if self._headers is not None:
            status = response_head(self._headers).status
            if status is not None:
                return status
        block = self._trailer_block
        if block is None:
            return CallStatus(Status.INTERNAL, "the response ended without trailers")
        trailers = trailers_of(block)
        if trailers.has_details:
            return status_from_trailers(block.fields, self._owner.details_codec())
        return trailers.status

    def __aiter__(self) -> ClientStream[SendT, RecvT]:
        return self

    async def __anext__(self) -> RecvT:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    # --- without a block ---------------------------------------------------------------------

    async def resume(
        self,
        connection: RPCConnection,
        stream: H2Stream,
        tell: Callable[[ClientStream[SendT, RecvT]], None],
    ) -> RecvT:
        """Go on with a unary call that somebody else has begun, and see it to its end.

        Args:
            connection: What it is on.
            stream: Its stream; the request was sent.
            tell: Tells this object what has come so far.

        Raises:
            GRPCError: The call has failed.
            DeadlineExceeded: The deadline passed.
        """
        channel = self._owner
        codec = self._own_codec or channel.codec
        self._messages = channel.message_channel(connection, stream, codec, self._due)
        self.peer = connection.peer
        self._message_sent = self._ended = self._end_said = True
        self._stage = _BEGUN
        stream.owner = self
        tell(self)
        nothing: Any = None
        return await self.unary(nothing, is_sent=True)

    async def unary(self, message: SendT, *, is_sent: bool = False) -> RecvT:
        """Make the whole of a call with one message each way, as fast as it goes.

        Args:
            message: The message.
            is_sent: It was sent.

        Raises:
            GRPCError: The call has failed; then the metadata that came is there. For a call that
                went well it may not be.
            DeadlineExceeded: The deadline passed.
        """
        try:
            if not is_sent:
                await self.send_message(message, end=True)
            messages = self._open_messages
            while not messages.buffer.ready and messages.failure is None:
                if self._headers is not None and response_head(self._headers).status is not None:
                    break
                await messages.wait_received()
            reply = self._usual_reply(messages)
            if reply is None:
                reply = await self.recv_message()
                if self._status is None:
                    await self._finish(self._open_messages)
        except BaseException as error:
            self.abandon(error)
            raise
        if self._stage is _BEGUN:
            self._stage = _ENDED
            self._owner.counts.succeeded += 1
        self.abandon()
        return reply  # type: ignore[return-value]  # None is an error here, raised above

    def _usual_reply(self, messages: MessageChannel) -> RecvT | None:
        """The reply, if all of it is here and nothing about it is unusual."""
        headers, trailers = self._headers, self._trailer_block
        if headers is None or trailers is None or trailers is headers:
            return None
        if messages.failure is not None or self._owner.events.active:
            return None
        head, end = response_head(headers), trailers_of(trailers)
        if head.status is not None or head.encoding is not None or end.status.status is not _OK:
            return None
        return messages.take_only(self._recv_type)  # type: ignore[no-any-return]

    @property
    def channel(self) -> Channel:
        """What it goes through."""
        return self._owner

    @property
    def is_heard(self) -> bool:
        """Whether the server may still listen: it has not ended the call."""
        messages = self._messages
        return messages is None or (messages.failure is None and not messages.unwanted)

    async def recv_status(self) -> None:
        """Wait for the end of the call, whether or not this side has said all.

        Raises:
            GRPCError: The status of the call is not OK.
            DeadlineExceeded: The deadline passed.
        """
        await self._wait_end()
        self._raise_unless_ok(await self._take_trailers())

    def fail(self, error: Exception) -> None:
        """End the call at once; whoever waits for its answer gets `error`."""
        messages = self._open_messages
        if messages.failure is None:
            messages.reset(ErrorCode.CANCEL)
            messages.fail(error)

    def abandon(self, error: BaseException | None = None) -> None:
        """End the call at once, in whatever state it is; it is not used any more.

        It does what leaving the block does, for who does not use one.

        Args:
            error: Why, where it is an exception.
        """
        if self._observers:
            self._tell_observers(error)
        if self._stage is not _ENDED:
            self._count_end(error)
        messages = self._messages
        if messages is not None:
            messages.close()
            self._owner.stream_closed()

    # --- the block ---------------------------------------------------------------------------

    async def cancel(self) -> None:
        """End the call at once; the server is told.

        Raises:
            ProtocolError: The method was called at the wrong time.
        """
        messages = self._open_messages
        if self._cancelled:
            msg = "Stream was already cancelled"
            raise ProtocolError(msg)
        self._cancelled = True
        messages.reset(ErrorCode.CANCEL)
        messages.fail(GRPCError(Status.CANCELLED, "the call was cancelled"))

    async def __aenter__(self) -> ClientStream[SendT, RecvT]:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        messages = self._messages
        try:
            if (
                messages is not None
                and exc_val is None
                and not self._cancelled
                and self._status is None
            ):
                await self._finish(messages)
        except BaseException as error:
            self.abandon(error)
            raise
        self.abandon(exc_val)

    async def _finish(self, messages: MessageChannel) -> None:
        """Leave the block without an exception: see the call to its end, or give it up."""
        if self._left_early(messages):
            return
        if not self._ended:
            msg = "Outgoing stream was not ended"
            raise ProtocolError(msg)
        if self.initial_metadata is None:
            await self.recv_initial_metadata()
            messages = self._open_messages
        while self._trailer_block is None and not messages.buffer.eof:
            if messages.failure is not None:
                raise messages.failure
            await messages.wait_received()
            if messages.buffer.partial:
                if self._cardinality.server_streaming:
                    return
                if self._message_received:
                    raise self._give_up(TOO_MANY_MESSAGES)
                messages.drop()
        self._raise_unless_ok(await self._take_trailers())
        if (
            self._message_received
            and messages.buffer.partial
            and not self._cardinality.server_streaming
        ):
            raise self._give_up(TOO_MANY_MESSAGES)

    def _left_early(self, messages: MessageChannel) -> bool:
        """Whether the rest of a streamed response is not wanted."""
        if not self._cardinality.server_streaming or self._trailer_block is not None:
            return False
        if messages.failure is not None or messages.buffer.eof:
            return False
        return (
            messages.buffer.partial
            or not self._ended
            or (self._message_received and not self._cardinality.client_streaming)
        )

    def __repr__(self) -> str:
        return f"<ClientStream {self._method_name}>"
