"""The client's side of a connection: `Channel`, with the interface of `grpclib.client.Channel`."""

from __future__ import annotations

import math
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from grpclib.const import Cardinality, Status
from grpclib.events import (
    _DispatchChannelEvents,  # the base of what `grpclib.events.listen` takes
)
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._loops import Home, Waiter, caller_from_threads, waiter_factory
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin._version import __version__
from pyvider_rpcplugin.exception import RPCPluginError, TransportError
from pyvider_rpcplugin.http2 import HeaderEncoder

from ._call import MessageChannel, encoding_named, wait_until
from ._client_stream import ClientStream
from ._codecs import content_type, content_type_of, default_codec, default_details_codec
from ._compression import ACCEPTED
from ._connection import RPCConnection
from ._counts import CallCounts
from ._metadata import (
    Deadline,
    effective_deadline,
    encode_metadata,
    encode_timeout,
    header_list_size,
    new_metadata,
)
from ._options import RPCOptions
from .errors import ConnectionLost, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable

    from anyio.abc import ByteStream, TaskGroup, TaskStatus
    from grpclib.client import Channel as _Base
    from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
    from grpclib.metadata import Deadline as GrpclibDeadline, _Metadata as Metadata

    from pyvider_rpcplugin.exception import PluginExit

    from ._compression import MessageEncoding
    from ._connection import Incoming
    from ._interceptors import Interceptor
    from ._metadata import MetadataLike
    from ._multicallable import (
        StreamStreamMultiCallable,
        StreamUnaryMultiCallable,
        UnaryStreamMultiCallable,
        UnaryUnaryMultiCallable,
    )
    from .statistics import ChannelStatistics
else:
    _Base = object

SendT = TypeVar("SendT")
RecvT = TypeVar("RecvT")

USER_AGENT = f"grpc-python-pyvider-rpcplugin/{__version__}"

_CACHED_METHODS = 1024
_LAST_WORDS_TIMEOUT = 0.25
# A server that lets nobody in may be asked so often in a row; then whoever waits is told.
_MOST_UNUSED_CONNECTIONS = 3


class ChannelEvents(_DispatchChannelEvents):
    """grpclib's dispatcher, which also knows whether anybody listens."""

    active: bool = False

    def add_listener(self, event_type: Any, callback: Any) -> None:
        """Register a listener; `grpclib.events.listen` calls it."""
        self.active = True
        super().add_listener(event_type, callback)


class _Pending:
    """A call that waits for a connection."""

    __slots__ = ("error", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.error: Exception | None = None


class Channel(_Base):
    """Calls to one endpoint, over one connection at a time that is made anew when it is lost.

    Generated grpclib stubs take it as their channel. It does nothing until its owner runs `run`
    in a task group, or enters `open_channel`.

    Args:
        connect: Opens a new connection to the endpoint; the channel closes it.
        authority: The name that requests carry.
        scheme: `http`, or `https` where the streams are encrypted.
        codec: How messages are written; Protocol Buffers by default.
        status_details_codec: How the details of an error are.
        options: Limits and keepalive.
        on_lost: Is awaited when a connection broke, before its calls fail. If it returns how the
            endpoint's process ended, the endpoint is gone: this and every later call fails with
            `ConnectionLost` that says so. If it returns None, later calls connect again.
        interceptors: Called before each call.
    """

    # What carries the messages of a call: threads wait in another way than tasks.
    message_channel: type[MessageChannel] = MessageChannel
    # Whose clock its calls go by, likewise.
    deadline_type: type[Deadline] = Deadline

    def __init__(
        self,
        connect: Callable[[], Awaitable[ByteStream]],
        *,
        authority: str = "localhost",
        scheme: str = "http",
        codec: CodecBase | None = None,
        status_details_codec: StatusDetailsCodecBase | None = None,
        options: RPCOptions | None = None,
        on_lost: Callable[[], Awaitable[PluginExit | None]] | None = None,
        interceptors: Iterable[Interceptor] = (),
    ) -> None:
        self._connect = connect
        self._own_details_codec = status_details_codec
        self._on_lost = on_lost
        self.interceptors: tuple[Interceptor, ...] = tuple(interceptors)
        self.codec: CodecBase = codec or default_codec()
        self._default_codecs = codec is None
        self.options: RPCOptions = options or RPCOptions()
        self.encoding: MessageEncoding | None = encoding_named(self.options.compression)
        self.content_type: str = content_type(self.codec)
        self.events: ChannelEvents = ChannelEvents()
        self.__dispatch__: _DispatchChannelEvents = self.events
        self._encoder = HeaderEncoder()
        self._blocks: dict[str | tuple[str, str], bytes] = {}
        self.base_fields: tuple[tuple[str, str], ...] = (
            (":method", "POST"),
            (":scheme", scheme),
            (":authority", authority),
        )
        self.counts: CallCounts = CallCounts()
        self._ended_bytes = (0, 0)
        self._connections: set[RPCConnection] = set()
        self._connection: RPCConnection | None = None
        self._latest: RPCConnection | None = None
        self._unused = 0
        self._pending: deque[_Pending] = deque()
        self._manager: Waiter | None = None
        self._closed = False
        self._gone: PluginExit | None = None
        self._explaining = 0
        self._running = False
        self._tasks: TaskGroup | None = None
        self._connecting: anyio.CancelScope | None = None
        self._home: Home | None = None
        self._call_in_loop: Callable[[Callable[[], object]], object] | None = None

    def _extra_fields(self, subtype: str | None) -> tuple[tuple[str, str], ...]:
        fields = [
            ("te", "trailers"),
            (
                "content-type",
                self.content_type if subtype is None else content_type_of(subtype),
            ),
            ("user-agent", USER_AGENT),
            ("grpc-accept-encoding", ACCEPTED),
        ]
        if self.encoding is not None:
            fields.append(("grpc-encoding", self.encoding.name))
        return tuple(fields)

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._gone is not None:
            state = "gone"
        else:
            state = "idle" if self._connection is None else "connected"
        return f"<Channel {state}>"

    # --- calls -----------------------------------------------------------------------------

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[SendT],
        reply_type: type[RecvT],
        *,
        timeout: float | None = None,  # grpclib's interface
        deadline: GrpclibDeadline | None = None,
        metadata: MetadataLike | None = None,
        codec: CodecBase | None = None,
    ) -> ClientStream[SendT, RecvT]:
        """Prepare a call; nothing is sent before its first method.

        Args:
            name: The full path, `/package.Service/Method`.
            cardinality: Which directions are streamed.
            request_type: The type of the messages sent.
            reply_type: The type of the messages received.
            timeout: Seconds that the call may take; by default what the options say. `math.inf`: it
                has no deadline, whatever the options and the call being handled say.
            deadline: By when it must be complete. The earlier of the two counts, and the
                deadline of the call that is being handled, where there is one.
            metadata: What is sent with the request.
            codec: How this call's messages are written; by default as the channel's are.
        """
        return ClientStream(
            self,
            name,
            new_metadata(metadata) if metadata else None,
            cardinality,
            request_type,
            reply_type,
            self.due_of(timeout, deadline),
            codec,
        )

    def due_of(self, timeout: float | None, deadline: GrpclibDeadline | None) -> Deadline | None:
        """By when a call that begins now must be complete; see `request`."""
        if timeout == math.inf and deadline is None:
            return None
        due = effective_deadline(timeout, deadline)
        if due is None and self.options.default_timeout is not None:
            due = Deadline.from_timeout(self.options.default_timeout)
        return due

    def details_codec(self) -> StatusDetailsCodecBase | None:
        """How the details of an error are decoded."""
        if self._own_details_codec is None and self._default_codecs:
            return default_details_codec()
        return self._own_details_codec

    def request_block(
        self,
        name: str,
        deadline: Deadline | None,
        metadata: Metadata | None,
        limit: int,
        subtype: str | None = None,
        encoding: MessageEncoding | None = None,
    ) -> bytes:
        """The encoded header section of a request. What is the same each time is kept.

        `subtype` names the message format, where it is not the channel's.

        Raises:
            DeadlineExceeded: There is no time left.
            GRPCError: RESOURCE_EXHAUSTED, it is larger than the server takes (`limit`): that
                could cost the connection, and so all other calls.
            ValueError, TypeError: The metadata cannot be sent.
        """
        key = name if subtype is None else (name, subtype)
        block = self._blocks.get(key)
        if block is None:
            fields = (*self.base_fields, (":path", name), *self._extra_fields(subtype))
            block = self._encoder.encode(fields)
            if len(self._blocks) < _CACHED_METHODS:
                self._blocks[key] = block
        if encoding is not None and encoding is not self.encoding:
            block = self._block_with(name, subtype, encoding)
        if deadline is not None:
            remaining = deadline.time_remaining()
            if remaining <= 0:
                raise DeadlineExceeded
            if remaining < math.inf:
                timeout = (("grpc-timeout", encode_timeout(remaining)),)
                block += self._encoder.encode(timeout, huffman=False)
        if metadata:
            encoded = encode_metadata(metadata)
            if header_list_size(encoded) > limit:
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED, "the metadata is larger than the server takes"
                )
            block += self._encoder.encode(encoded, huffman=False)
        return block

    def _block_with(self, name: str, subtype: str | None, encoding: MessageEncoding) -> bytes:
        """What begins the request of a call that is compressed otherwise than the others."""
        fields = [field for field in self._extra_fields(subtype) if field[0] != "grpc-encoding"]
        fields.append(("grpc-encoding", encoding.name))
        return self._encoder.encode((*self.base_fields, (":path", name), *fields))

    def connection_now(self) -> RPCConnection | None:
        """The connection if a call can begin on it at once.

        Raises:
            RPCPluginError: This is not the event loop that the channel runs on.
        """
        home = self._home
        if home is not None:
            home.check("the channel")
        connection = self._connection
        if connection is None or self._pending or self._gone is not None:
            return None
        return connection if self._usable(connection) else None

    @staticmethod
    def _usable(connection: RPCConnection) -> bool:
        h2 = connection.h2
        return not connection.draining and h2.accepts_requests and h2.can_open_stream()

    async def wait_connection(self, deadline: Deadline | None) -> RPCConnection:
        """Wait until a call can begin: for a connection, and for its turn on it.

        Raises:
            GRPCError: UNAVAILABLE, the channel is closed or cannot connect.
            DeadlineExceeded: The deadline passed first.
        """
        pending: _Pending | None = None
        try:
            while True:
                if self._gone is not None:
                    raise self._gone_error()
                if self._closed or not self._running:
                    raise GRPCError(Status.UNAVAILABLE, "the channel is not open")
                if pending is not None and pending.error is not None:
                    cause = pending.error
                    msg = f"could not connect again: {cause}"
                    raise ConnectionLost(msg) from cause
                first = not self._pending or self._pending[0] is pending
                connection = self._connection
                if connection is not None and first and self._usable(connection):
                    return connection
                if pending is None:
                    pending = _Pending(waiter_factory()())
                    self._pending.append(pending)
                    self._wake_manager()
                await wait_until(pending.waiter, deadline)
        finally:
            if pending is not None:
                if pending in self._pending:
                    self._pending.remove(pending)
                self._wake_first()

    @property
    def alive(self) -> bool:
        """Whether calls may still begin, now or once it has connected."""
        return self._running and not self._closed and self._gone is None

    @property
    def requests_sent(self) -> int:
        """How many calls were begun on the present connection."""
        return 0 if self._latest is None else self._latest.h2.requests_sent

    def open_calls(self, through: Channel | None) -> int:
        """How many calls are open on its connections; only those made `through` that channel."""
        return sum(
            through is None or getattr(stream.owner, "_owner", None) is through
            for connection in self._connections
            for stream in connection.h2.streams.values()
        )

    def statistics(self) -> ChannelStatistics:
        """What has gone through so far: a snapshot, which does not change."""
        from .statistics import ChannelStatistics  # noqa: PLC0415 - only for who asks

        sent, received = self.bytes_moved()
        fields: dict[str, Any] = self.counts.as_fields()
        return ChannelStatistics(
            connections=len(self.live_connections()),
            bytes_sent=sent,
            bytes_received=received,
            calls_waiting=self.calls_waiting(),
            rtt=self.last_rtt(),
            **fields,
        )

    def bytes_moved(self) -> tuple[int, int]:
        """How many octets were sent and received, on all connections so far."""
        sent, received = self._ended_bytes
        for connection in self.live_connections():
            sent += connection.bytes_sent
            received += connection.bytes_received
        return sent, received

    def live_connections(self) -> tuple[Incoming, ...]:
        """The connections that are open."""
        return tuple(self._connections)

    def calls_waiting(self) -> int:
        """How many calls wait for a connection, or for their turn on it."""
        return len(self._pending)

    def last_rtt(self) -> float | None:
        """Seconds that the answer to the last PING took."""
        return None if self._latest is None else self._latest.rtt

    def stream_closed(self) -> None:
        """A call has ended: another one may take its place."""
        if self._pending:
            self._wake_first()
        if len(self._connections) > 1 or self._connection is None or self._connection.draining:
            self._close_retired()

    def _close_retired(self) -> None:
        """Close the connections that get no more calls and have none left."""
        for connection in list(self._connections):
            retired = connection.draining or not connection.h2.accepts_requests
            if retired and connection.lost is None and not connection.h2.streams:
                connection.close()

    def _changed(self) -> None:
        """A connection is up, lost, being left by its server, or takes more calls than before."""
        self._wake_manager()
        self._wake_first()
        self._close_retired()

    def _wake_first(self) -> None:
        if self._pending:
            self._pending[0].waiter.wake()

    def _wake_all(self) -> None:
        for pending in self._pending:
            pending.waiter.wake()

    # --- grpcio's generated code -------------------------------------------------------------

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryMultiCallable:
        """Make what grpcio's generated stubs call a method through; they call this themselves.

        Args:
            method: The full path, `/package.Service/Method`.
            request_serializer: Makes octets of a request; None: it is octets.
            response_deserializer: Makes a response of octets; None: it stays octets.
        """
        from ._multicallable import UnaryUnaryMultiCallable  # noqa: PLC0415 - only where used

        return UnaryUnaryMultiCallable(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryStreamMultiCallable:
        """As `unary_unary`, for a method whose responses are streamed."""
        from ._multicallable import UnaryStreamMultiCallable  # noqa: PLC0415 - as above

        return UnaryStreamMultiCallable(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamUnaryMultiCallable:
        """As `unary_unary`, for a method whose requests are streamed."""
        from ._multicallable import StreamUnaryMultiCallable  # noqa: PLC0415 - as above

        return StreamUnaryMultiCallable(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamStreamMultiCallable:
        """As `unary_unary`, for a method that streams in both directions."""
        from ._multicallable import StreamStreamMultiCallable  # noqa: PLC0415 - as above

        return StreamStreamMultiCallable(self, method, request_serializer, response_deserializer)

    def remember_loop(self) -> None:
        """Called in the event loop's thread, so that `call_soon` can be called from any."""
        if self._call_in_loop is None:
            self._call_in_loop = caller_from_threads()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have `function` called in the event loop, if that still runs."""
        if self._call_in_loop is not None:
            # Both loops raise a RuntimeError of their own once they have ended.
            with suppress(RuntimeError):
                self._call_in_loop(function)

    # --- life ------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Connect, and keep calls supplied with a connection until `close` is called.

        It also returns once it is known that the endpoint has ended, and every call too.

        Once the first connection is up, `task_status` is started.

        Raises:
            TransportError: The first connection could not be made: what `connect` raised, or the
                peer does not speak HTTP/2.

        Cancellation:
            Closes the connection; calls that are running end with CANCELLED.
        """
        self._manager = waiter_factory()()
        self._home = Home()
        try:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    self._running = True
                    await self._establish(tasks)
                    self._tasks = tasks
                    task_status.started()
                    await self._manage(tasks)
        finally:
            self._running = False
            self._tasks = None
            self._home = None
            self.close()

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Run a function in a task of its own, which belongs to the channel.

        For what a call has to do while control is with its caller. The function raises nothing,
        and ends at once when its call does, which is at the latest when the channel is closed.

        Raises:
            GRPCError: UNAVAILABLE, the channel is not open.
        """
        if self._closed or self._tasks is None:
            raise GRPCError(Status.UNAVAILABLE, "the channel is not open")
        self._tasks.start_soon(function, *args, name="rpc call")

    async def _manage(self, tasks: TaskGroup) -> None:
        while not self._closed:
            if self._gone is not None:
                await self._end_connections()
                return
            if self._pending and self._needs_connection():
                try:
                    self._check_last_was_used()
                    await self._establish(tasks)
                except (RPCPluginError, OSError) as error:
                    await self._explain()
                    self._fail_pending(error)
                continue
            await self._wait_manager()

    async def _end_connections(self) -> None:
        """End connections whose server has ended, though somebody (a child of it) holds them open.

        What it had sent before is still read.
        """
        with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
            while self._connections:
                await self._wait_manager()
        for connection in self._connections:
            connection.close()
        while self._connections:
            await self._wait_manager()

    async def _explain(self) -> PluginExit | None:
        """Find out whether the endpoint is gone for good."""
        if self._gone is not None:
            return self._gone
        ended = None if self._on_lost is None else await self._on_lost()
        if ended is not None:
            self.endpoint_ended(ended)
        return ended

    def _fail_pending(self, error: Exception) -> None:
        """The attempt that they waited for has failed; the next call makes another one."""
        pending, self._pending = self._pending, deque()
        for call in pending:
            call.error = error
            call.waiter.wake()

    def _needs_connection(self) -> bool:
        if self._explaining:
            return False
        connection = self._connection
        if connection is None:
            return True
        # A connection that broke is looked into first: there may be nothing to connect to.
        return connection.lost is None and not (
            connection.h2.accepts_requests and not connection.draining
        )

    def _check_last_was_used(self) -> None:
        """Bound how often a server is connected to that leaves each time before a call begins.

        Raises:
            TransportError: It was often enough.
        """
        unused = self._latest is not None and not self._latest.h2.requests_sent
        self._unused = self._unused + 1 if unused else 0
        if self._unused >= _MOST_UNUSED_CONNECTIONS:
            self._latest = None
            msg = f"the server ended {self._unused} connections in a row before a call could begin"
            raise TransportError(msg)

    async def _establish(self, tasks: TaskGroup) -> None:
        """Make a new connection and wait until the peer has said that it speaks HTTP/2."""
        with anyio.CancelScope() as self._connecting:
            stream = await self._connect()
        if self._connecting.cancelled_caught or self._closed:
            if not self._connecting.cancelled_caught:
                await anyio.aclose_forcefully(stream)
            message = "the channel was closed while it connected"
            raise TransportError(message)
        connection = RPCConnection(stream, client_side=True, options=self.options)
        connection.on_change = self._changed
        self._connections.add(connection)
        tasks.start_soon(self._run_connection, connection, name="rpc connection")
        timeout = self.options.settings_timeout
        with anyio.move_on_after(timeout) as scope:
            while not connection.ready and connection.lost is None:
                await self._wait_manager()
        if connection.lost is not None:
            if isinstance(connection.lost.__cause__, RPCPluginError):
                raise connection.lost.__cause__  # The stream below knows better, as TLS does.
            if connection.ready:
                message = f"the server ended the connection at once: {connection.lost}"
                raise TransportError(message) from connection.lost
            message = f"the connection was lost before HTTP/2 was set up: {connection.lost}"
            hint = "Is it a gRPC server, and without TLS?"
            raise TransportError(message, hint) from connection.lost
        if scope.cancelled_caught:
            connection.close()
            message = (
                f"the other side accepted the connection and sent no HTTP/2 within {timeout:g} s"
            )
            raise TransportError(message, "Is it a gRPC server, and without TLS?")
        self._connection = self._latest = connection
        self._wake_all()

    async def _wait_manager(self) -> None:
        if self._manager is not None:
            await self._manager.wait()

    def _wake_manager(self) -> None:
        if self._manager is not None:
            self._manager.wake()

    async def _run_connection(self, connection: RPCConnection) -> None:
        try:
            await connection.run()
        except BaseException:
            self._fail(connection, closed_error)
            raise
        finally:
            self._connections.discard(connection)
            sent, received = self._ended_bytes
            self._ended_bytes = (sent + connection.bytes_sent, received + connection.bytes_received)
            if self._connection is connection:
                self._connection = None
            self._wake_manager()
        if self._closed:
            return
        if connection.h2.goaway_received and not connection.h2.streams:
            self._wake_manager()  # It was left, and nobody needs to know why.
            return
        # New calls wait meanwhile: the manager connects again only once it is known whether there
        # is anything to connect to.
        self._explaining += 1
        try:
            ended = await self._explain()
        finally:
            self._explaining -= 1
        if ended is None:
            self._fail(connection, lambda: lost_error(str(connection.lost), connection.lost))
        else:
            self._fail(connection, self._gone_error)
        self._wake_manager()

    def endpoint_ended(self, ended: PluginExit) -> None:
        """Say that the process behind the endpoint has ended: no call will ever be answered.

        Calls that wait for a connection fail at once, and so does every later one. Those that
        are running learn it from their connection, or a moment later from here.
        """
        if self._gone is None:
            self._gone = ended
            self._wake_all()
            self._wake_manager()

    def _gone_error(self) -> ConnectionLost:
        return gone_error(self._gone)

    def _fail(self, connection: RPCConnection, error: Callable[[], Exception]) -> None:
        for stream in list(connection.h2.streams.values()):
            owner: Any = stream.owner
            if owner is not None:
                owner.on_lost(error())  # An exception of its own each: they get tracebacks.

    def close(self) -> None:
        """End the channel: running calls end with CANCELLED, later ones with UNAVAILABLE.

        Returns at once and may be called again; `run` returns once the connection is closed.
        """
        if self._closed:
            return
        self._closed = True
        for connection in list(self._connections):
            self._fail(connection, closed_error)
            connection.close()
        if self._connecting is not None:
            self._connecting.cancel()
        self._wake_all()
        self._wake_manager()


def lost_error(reason: str, cause: Exception | None) -> ConnectionLost:
    """What calls get whose connection broke."""
    error = ConnectionLost(f"the connection was lost: {reason}")
    error.__cause__ = cause
    return error


def gone_error(ended: PluginExit | None) -> ConnectionLost:
    """What calls get whose plugin has ended."""
    reason = "has ended" if ended is None else ended.describe()
    return ConnectionLost(f"the connection was lost: the plugin {reason}", ended)


def closed_error() -> GRPCError:
    """What running calls get when their channel is closed."""
    return GRPCError(Status.CANCELLED, "the channel was closed")


@asynccontextmanager
async def open_channel(channel: Channel) -> AsyncIterator[Channel]:
    """Run `channel` for the length of a block.

    The block is inside a task group: leave it in the task that entered it.
    """
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            await tasks.start(channel.run)
            try:
                yield channel
            finally:
                channel.close()
