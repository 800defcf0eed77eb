"""The server's side of one call, with the methods and properties of `grpclib.server.Stream`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError
from multidict import MultiDict

from pyvider_rpcplugin.http2 import ErrorCode, HeaderBlock, StreamReset

from ._call import MessageChannel
from ._compression import ENCODINGS
from ._metadata import MetadataLike, encode_metadata, header_list_size
from ._status import OK, CallStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from grpclib.encoding.base import CodecBase
    from grpclib.metadata import Deadline as GrpclibDeadline, _Metadata as Metadata
    from grpclib.protocol import Peer as PeerBase
    from grpclib.server import Stream as _Base

    from pyvider_rpcplugin._loops import Cancellable
    from pyvider_rpcplugin.http2 import Field, H2Stream

    from ._connection import RPCConnection
    from ._metadata import Deadline
    from ._request import RequestHead
    from ._server import Server
else:
    _Base = Generic

RecvT = TypeVar("RecvT")
SendT = TypeVar("SendT")

_CANCELLED = CallStatus(Status.CANCELLED, "the call was cancelled")

current_call: ContextVar[ServerStream[Any, Any] | None] = ContextVar("current_call", default=None)
"""The call that is being handled."""


class ServerStream(_Base[RecvT, SendT]):
    """One call as its handler sees it.

    Attributes:
        codec: How its messages are written.
        deadline: By when the client wants the call to be complete; None: whenever.
        user_agent: How the client calls itself.
        peer: Who calls.
        final_status: What the client was told; None before, and if it was told nothing.

    Cancellation:
        The handler is cancelled when the client gives the call up, when the deadline passes, and
        when the server stops and its grace is over.
    """

    __slots__ = (
        "_cancelled",
        "_cardinality",
        "_connection",
        "_h2_stream",
        "_handler",
        "_initial_metadata_sent",
        "_message_received",
        "_message_sent",
        "_messages",
        "_metadata",
        "_server",
        "_subtype",
        "_trailers_sent",
        "cancel_status",
        "codec",
        "deadline",
        "due",
        "final_status",
        "head",
        "observers",
        "peer",
        "task",
        "user_agent",
    )

    def __init__(
        self,
        server: Server,
        connection: RPCConnection,
        stream: H2Stream,
        head: RequestHead,
        handler: Any,  # grpclib.const.Handler, which type checkers know nothing of
        deadline: Deadline | None,
        codec: CodecBase,
    ) -> None:
        self._server = server
        self.codec: CodecBase = codec
        # What the answer says of its format; None: what the server's answers say.
        self._subtype: str | None = None if codec is server.codec else head.subtype
        self._connection = connection
        self._h2_stream = stream
        self._handler = handler
        self._cardinality = handler.cardinality
        self._messages = MessageChannel(connection, stream, codec, deadline=None)
        self._messages.encoding_in = head.encoding
        self._messages.buffer.eof = stream.remote_closed
        self._initial_metadata_sent = False
        self._message_sent = False
        self._message_received = False
        self._trailers_sent = False
        self._cancelled = False
        self.head: RequestHead = head
        self.deadline: GrpclibDeadline | None = deadline
        self.due: Deadline | None = deadline
        self._metadata: Metadata | None = None
        self.user_agent: str | None = head.user_agent
        self.peer: PeerBase = connection.peer
        self.task: Cancellable | None = None
        self.cancel_status: CallStatus | None = None
        self.observers: list[Callable[[CallStatus], object]] | None = None
        self.final_status: CallStatus | None = None
        stream.owner = self
        encoding = server.encoding
        if encoding is not None and encoding.name in head.accepted_encodings:
            self._messages.encoding_out = encoding

    @property
    def metadata(self) -> Metadata | None:
        """What came with the request, this call's own copy."""
        if self._metadata is None:
            self._metadata = self.head.metadata()
        return self._metadata

    @metadata.setter
    def metadata(self, value: Metadata | None) -> None:
        self._metadata = value

    @property
    def server(self) -> Server:
        """The server that it came to."""
        return self._server

    # --- what the connection reports ---------------------------------------------------------

    def on_headers(self, headers: HeaderBlock, *, end_stream: bool) -> None:
        """Never happens on a server."""

    def on_data(self, data: bytes | memoryview, *, end_stream: bool) -> None:
        """Content came."""
        self._messages.on_data(data, end_stream=end_stream)

    def on_trailers(self, headers: HeaderBlock) -> None:  # gRPC gives them no meaning
        """The client ended the stream with trailers."""
        self._messages.on_end()

    def on_reset(self, event: StreamReset) -> None:
        """The client gave the call up."""
        self._end_early(CallStatus(Status.CANCELLED, event.reason))

    def on_window(self) -> None:
        """More may be sent."""
        self._messages.on_window()

    def on_lost(self, error: Exception) -> None:
        """The connection is gone."""
        self._end_early(CallStatus(Status.CANCELLED, str(error)))

    def _end_early(self, status: CallStatus) -> None:
        self._messages.fail(GRPCError(status.status, status.message))
        self.cancel_handler(status)

    def cancel_handler(self, status: CallStatus) -> None:
        """Cancel the handler; `status` is what the client is told, if it can be."""
        if self.cancel_status is None:
            self.cancel_status = status
        if self.task is not None:
            self.task.cancel()

    # --- for who adapts other kinds of handlers ----------------------------------------------

    @property
    def cardinality(self) -> Cardinality:
        """Which directions are streamed."""
        cardinality: Cardinality = self._cardinality
        return cardinality

    def use_handler(self, handler: Any, codec: CodecBase) -> None:
        """Let another handler than the method's own have the call, before anything was read."""
        self._handler = handler
        self._cardinality = handler.cardinality
        self._messages.use_codec(codec)

    @property
    def began(self) -> bool:
        """Whether the response's headers have been sent."""
        return self._initial_metadata_sent

    @property
    def over(self) -> bool:
        """Whether nothing more can be sent."""
        return self._trailers_sent or self._h2_stream.closed

    # --- receiving ---------------------------------------------------------------------------

    async def recv_message(self) -> RecvT | None:
        """The next message; None once the client has ended its stream.

        Raises:
            GRPCError: The message is too large or malformed; let it pass, and the client gets it
                as the status of the call.
        """
        messages = self._messages
        while True:
            message = messages.take_message(self._handler.request_type)
            if message is not None:
                break
            if messages.packed is not None:
                message = await messages.unpack(self._handler.request_type)
                break
            if messages.buffer.eof:
                self._at_end()
                return None
            if messages.failure is not None:
                raise messages.failure
            await messages.wait_received()
        events = self._server.events
        if events.active:
            (message,) = await events.recv_message(message)
        self._message_received = True
        await messages.after_message()
        return message  # type: ignore[no-any-return]

    def _at_end(self) -> None:
        if self._messages.buffer.partial:
            raise GRPCError(Status.INTERNAL, "the request ended in the middle of a message")
        if not self._cardinality.client_streaming and not self._message_received:
            raise GRPCError(
                Status.INTERNAL, "the request ended without the one message that it must have"
            )

    def __aiter__(self) -> ServerStream[RecvT, SendT]:
        return self

    async def __anext__(self) -> RecvT:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    # --- sending -----------------------------------------------------------------------------

    def set_compression(self, name: str | None) -> None:
        """Compress the messages of this call with `name`, or not at all with None.

        It takes effect where the client accepts it, and must be said before the first message.

        Raises:
            ValueError: There is no such encoding.
            ProtocolError: The response's headers have been sent already.
        """
        if name is not None and name not in ENCODINGS:
            msg = f"unknown encoding {name!r}: gzip and deflate are there"
            raise ValueError(msg)
        if self._initial_metadata_sent:
            msg = "Initial metadata was already sent"
            raise ProtocolError(msg)
        accepted = name is not None and name in self.head.accepted_encodings
        self._messages.encoding_out = ENCODINGS[name] if name is not None and accepted else None

    async def send_initial_metadata(self, *, metadata: MetadataLike | None = None) -> None:
        """Send the response's headers at once; `send_message` does it where it was not done.

        Raises:
            ProtocolError: They have been sent already.
            ValueError, TypeError: The metadata cannot be sent.
        """
        await self._begin(metadata)
        self._connection.flush()

    async def _begin(self, metadata: MetadataLike | None) -> None:
        if self._initial_metadata_sent or self._trailers_sent:
            msg = "Initial metadata was already sent"
            raise ProtocolError(msg)
        events = self._server.events
        if events.active:
            values: Any = MultiDict(metadata or ())
            (metadata,) = await events.send_initial_metadata(values)
        fields = encode_metadata(metadata) if metadata else ()
        if not self._h2_stream.closed:
            if (
                fields
                and header_list_size(fields) > self._connection.h2.remote.max_header_list_size
            ):
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED, "the metadata is larger than the client takes"
                )
            block = self._server.response_block(self._messages.encoding_out, fields, self._subtype)
            self._connection.h2.send_headers(self._h2_stream, block)
        self._initial_metadata_sent = True

    async def send_message(self, message: SendT, *, compress: bool = True) -> None:
        """Send one message. A unary response's leaves together with the trailers.

        Args:
            message: An instance of the method's reply type.
            compress: Whether it is compressed, where the call's messages are.

        Raises:
            GRPCError: RESOURCE_EXHAUSTED, it is too large; CANCELLED, the client is gone.
            ProtocolError: The method was called at the wrong time.
        """
        streaming = self._cardinality.server_streaming
        if self._message_sent and not streaming:
            msg = "Message was already sent"
            raise ProtocolError(msg)
        if self._trailers_sent:
            msg = "Trailing metadata was already sent"
            raise ProtocolError(msg)
        events = self._server.events
        if events.active:
            (message,) = await events.send_message(message)
        messages = self._messages
        prefix, data = messages.encode(message, self._handler.reply_type, compress=compress)
        if not prefix:
            prefix, data = await messages.pack(data)
        if not self._initial_metadata_sent:
            await self._begin(None)
        # A unary answer's trailers follow when the handler returns: one write for all of it.
        await messages.send(prefix, data, flush=streaming)
        self._message_sent = True

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """End the call with a status; done after the handler where it did not do it.

        Raises:
            ProtocolError: The method was called at the wrong time.
            ValueError, TypeError: The metadata cannot be sent.
        """
        if self._trailers_sent:
            msg = "Trailing metadata was already sent"
            raise ProtocolError(msg)
        if self._lacks_message and status is Status.OK:
            msg = "Unary response with OK status requires a single message to be sent"
            raise ProtocolError(msg)
        await self.finish(CallStatus(status, status_message, status_details), metadata)

    @property
    def _lacks_message(self) -> bool:
        return not self._cardinality.server_streaming and not self._message_sent

    async def finish(self, status: CallStatus, metadata: MetadataLike | None = None) -> None:
        """Send the trailers, unless they have been sent or nobody would get them."""
        if self._trailers_sent:
            return
        events = self._server.events
        if events.active:
            values: Any = MultiDict(metadata or ())
            (metadata,) = await events.send_trailing_metadata(
                values,
                status=status.status,
                status_message=status.message,
                status_details=status.details,
            )
        fields = encode_metadata(metadata) if metadata else ()
        self.finish_now(status, fields)

    def finish_now(self, status: CallStatus, fields: list[Field] | tuple[()] = ()) -> None:
        """Send the trailers, without asking anybody."""
        if self._trailers_sent:
            return
        self.final_status = status
        stream = self._h2_stream
        if stream.closed:
            self._trailers_sent = True
            return
        h2 = self._connection.h2
        block = self._server.trailer_block(
            status,
            fields,
            with_headers=not self._initial_metadata_sent,
            limit=h2.remote.max_header_list_size,
            subtype=self._subtype,
        )
        self._trailers_sent = True
        h2.send_headers(stream, block, end_stream=True)
        if not stream.closed:
            # RFC 9113, section 8.1: the answer is complete, the rest of the request is not wanted.
            h2.reset_stream(stream, ErrorCode.NO_ERROR)
        self._connection.flush()

    def completion(self) -> CallStatus:
        """The status of a call whose handler has returned."""
        if self._lacks_message and not self._trailers_sent:
            return CallStatus(Status.UNKNOWN, "the handler returned without sending its message")
        return OK

    async def cancel(self) -> None:
        """End the call at once with RST_STREAM; the client sees it CANCELLED.

        Raises:
            ProtocolError: It was cancelled already.
        """
        if self._cancelled:
            msg = "Stream was already cancelled"
            raise ProtocolError(msg)
        self._cancelled = self._trailers_sent = True
        self._messages.reset(ErrorCode.CANCEL)
        self._messages.fail(GRPCError(Status.CANCELLED, "the call was cancelled"))

    def close(self) -> None:
        """The handler has ended: give back what it left unread."""
        self._messages.close()
        if self.observers is not None:
            from ._interceptors import notify  # noqa: PLC0415 - loaded where there are some

            notify(self.observers, self.final_status or _CANCELLED)

    async def __aenter__(self) -> ServerStream[RecvT, SendT]:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        return None

    def __repr__(self) -> str:
        return f"<ServerStream {self.head.path}>"
