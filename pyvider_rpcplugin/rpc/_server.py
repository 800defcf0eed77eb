"""The server's side: `Server` takes connections from a listener and runs handlers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from grpclib.const import Handler, Status
from grpclib.events import (
    _DispatchServerEvents,  # the base of what `grpclib.events.listen` takes
)
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin._loops import Spawner
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.http2 import ErrorCode, HeaderBlock, HeaderEncoder

from ._admission import Admission
from ._call import encoding_named
from ._codecs import (
    CodecHandler,
    content_type,
    content_type_of,
    default_codec,
    default_details_codec,
)
from ._compression import ACCEPTED
from ._connection import RPCConnection
from ._metadata import UNLIMITED, Deadline, current_deadline, header_list_size
from ._options import RPCOptions
from ._request import Refusal, request_head
from ._server_stream import ServerStream, current_call
from ._status import CallStatus, status_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from anyio.abc import ByteStream, Listener, TaskStatus
    from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase

    from pyvider_rpcplugin.http2 import Field, H2Stream

    from ._compression import MessageEncoding
    from ._interceptors import ServerInterceptors
    from ._request import RequestHead
    from .statistics import ServerStatistics

logger = event_logger(__name__)

AnyCall = ServerStream[Any, Any]

# In the words of most clients, which say it themselves where their clock is the faster one.
_OUT_OF_TIME = CallStatus(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
_ENDED = CallStatus(Status.UNAVAILABLE, "the server has ended")
_STOPPING = CallStatus(Status.UNAVAILABLE, "the server is stopping")
# As grpcio and grpc-go have it: only a call that may be made twice is made again for that.
_CUT = CallStatus(Status.UNAVAILABLE, "the server has stopped before the call was complete")
_LONGEST_MESSAGE = 1000
_CANCEL_TIMEOUT = 5.0


class Servable(Protocol):
    """What can be served: grpclib's generated bases, and whatever has the same method."""

    def __mapping__(self) -> dict[str, Handler]:
        """The handlers by their methods' full paths."""


class ServerEvents(_DispatchServerEvents):
    """grpclib's dispatcher, which also knows whether anybody listens."""

    active: bool = False

    def add_listener(self, event_type: Any, callback: Any) -> None:
        """Register a listener; `grpclib.events.listen` calls it."""
        self.active = True
        super().add_listener(event_type, callback)


class Server:
    """Serves handlers on any number of connections.

    Args:
        handlers: What to serve; more may be added until `serve`.
        codec: How messages are written; Protocol Buffers by default.
        status_details_codec: How the details of an error are.
        options: Limits and keepalive.

    Attributes:
        methods: The handlers by their methods' full paths.
        generic_handlers: Handlers of grpcio's form that do not list their methods.
        peer: Gives what calls those who call this server, where its owner knows; None: it does not.
        shows_tracebacks: Whether clients may be told where a handler's exception was raised.
        standing: Methods whose calls live as long as their connection: a stop does not wait for
            them, but for all others, and then ends them.
        admission: Counts connections and calls, and refuses those that are too many.
    """

    def __init__(
        self,
        handlers: Iterable[Servable] = (),
        *,
        codec: CodecBase | None = None,
        status_details_codec: StatusDetailsCodecBase | None = None,
        options: RPCOptions | None = None,
    ) -> None:
        self.methods: dict[str, Handler] = {}
        self.standing: set[str] = set()
        self.peer: Callable[[], Any] | None = None
        self.shows_tracebacks: bool = True
        self.codec: CodecBase = codec or default_codec()
        self._default_codecs = codec is None
        self._own_details_codec = status_details_codec
        self.options: RPCOptions = options or RPCOptions()
        self.encoding: MessageEncoding | None = encoding_named(self.options.compression)
        self.events: ServerEvents = ServerEvents()
        self.__dispatch__: ServerEvents = self.events
        self._encoder = HeaderEncoder()
        self._content_type = content_type(self.codec)
        self._subtype = self.codec.__content_subtype__
        self._blocks: dict[object, bytes] = {}
        self._connections: set[_ServerConnection] = set()
        self._accepted = 0
        self._ended_bytes = (0, 0)
        self._accepting: set[anyio.CancelScope] = set()
        self._stopping = False
        self._threads: anyio.CapacityLimiter | None = None
        self.generic_handlers: list[Any] = []
        self._interceptors: ServerInterceptors | None = None
        self.admission: Admission = Admission(self.options)
        for handler in handlers:
            self.add_service(handler)

    def statistics(self) -> ServerStatistics:
        """What has been served so far: a snapshot, which does not change."""
        from .statistics import ServerStatistics  # noqa: PLC0415 - only for who asks

        sent, received = self._ended_bytes
        for connection in self._connections:
            more_sent, more_received = connection.bytes_moved
            sent += more_sent
            received += more_received
        fields: dict[str, Any] = self.admission.counts.as_fields()
        return ServerStatistics(
            connections=len(self._connections),
            connections_accepted=self._accepted,
            bytes_sent=sent,
            bytes_received=received,
            **fields,
        )

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of the services, sorted."""
        return tuple(sorted({path.split("/")[1] for path in self.methods}))

    def add_service(self, handler: Servable, *, vital: bool = False) -> None:
        """Serve the methods of `handler`.

        Args:
            handler: What is served.
            vital: Whether its calls are taken even while there are too many.

        Raises:
            ProtocolError: It has no `__mapping__`, or one of its methods is served already.
        """
        mapping = getattr(handler, "__mapping__", None)
        if mapping is None:
            kind = type(handler).__name__
            message = f"{kind} cannot be served: it has no __mapping__ method"
            hint = "Derive the handler from the *Base class that grpclib generated."
            raise ProtocolError(message, hint)
        methods = mapping()
        self._add_methods(methods)
        if vital:
            self.admission.vital.update(methods)

    def _add_methods(self, methods: Mapping[str, Handler]) -> None:
        twice = sorted(
            path
            for path in self.methods.keys() & methods.keys()
            if self.methods[path] is not methods[path]
        )
        if twice:
            message = f"the method {twice[0]} is served already, by another handler"
            raise ProtocolError(message)
        self.methods.update(methods)

    # --- grpcio's generated code ---------------------------------------------------------------

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Serve what grpcio's generated code registers; it calls this itself.

        Args:
            generic_rpc_handlers: Each a `grpc.GenericRpcHandler`. One that does not list its
                methods is asked for each method that nobody else serves.

        Raises:
            ProtocolError: One of their methods is served already.
        """
        from ._servicer import listed_methods  # noqa: PLC0415 - only where it is used

        for generic in generic_rpc_handlers:
            methods = listed_methods(generic)
            if methods is None:
                self.generic_handlers.append(generic)
            else:
                self._add_servicer(methods)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """Serve a servicer's methods; grpcio's generated code calls this as well.

        Args:
            service_name: The service's full name.
            method_handlers: Each method's `grpc.RpcMethodHandler`, by its name.

        Raises:
            ProtocolError: One of the methods is served already.
        """
        self._add_servicer(
            {f"/{service_name}/{name}": handler for name, handler in method_handlers.items()}
        )

    def _add_servicer(self, methods: Mapping[str, Any]) -> None:
        from ._servicer import adapted, is_adapted  # noqa: PLC0415 - only where it is used

        self._add_methods(
            {
                path: adapted(method, self)
                for path, method in methods.items()
                # Generated code registers each method twice, in two ways.
                if not is_adapted(self.methods.get(path), method)
            }
        )

    def threads(self) -> anyio.CapacityLimiter:
        """What the threads of handlers that are plain functions are counted with."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self.options.max_workers)
        return self._threads

    def find_generic(self, head: RequestHead) -> Any:
        """The handler of a method that is not registered, if somebody has one all the same."""
        if not self.generic_handlers:
            return None
        from ._servicer import found_by  # noqa: PLC0415 - only where it is used

        found = found_by(self.generic_handlers, head, self)
        if found is None or self._interceptors is None:
            return found
        return self._interceptors.around(found)

    def intercept(self, interceptors: Iterable[Any]) -> None:
        """Have interceptors called before each call of what is served so far, and not of the rest.

        Args:
            interceptors: Async functions that take an `InterceptedCall`, and objects of the form
                of `grpc.aio.ServerInterceptor`, which are asked after all of those.

        Raises:
            ProtocolError: One is neither.
        """
        from ._interceptors import ServerInterceptors  # noqa: PLC0415 - only where it is used

        self._interceptors = ServerInterceptors(interceptors, self)
        self.methods.update(self._interceptors.around_all(self.methods))

    # --- life ------------------------------------------------------------------------------

    async def serve(
        self,
        listener: Listener[ByteStream],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections and handle their calls until `stop`; the listener stays open.

        Cancellation:
            Ends all calls at once.
        """
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as accepting:
                    task_status.started()
                    if self._stopping:
                        return
                    self._accepting.add(accepting)
                    try:
                        # Whoever closes the listener stops the accepting, and nothing else.
                        with contextlib.suppress(anyio.ClosedResourceError):
                            await listener.serve(self.serve_stream, tasks)
                    finally:
                        self._accepting.discard(accepting)

    async def serve_stream(self, stream: ByteStream) -> None:
        """Handle the calls of one connection until it ends; then the stream is closed."""
        if self._stopping:  # It was accepted just before, and `stop` does not know of it.
            await anyio.aclose_forcefully(stream)
            return
        if not self.admission.has_room(len(self._connections)) and not self._drop_silent():
            await self.admission.turn_away(stream)
            return
        connection = _ServerConnection(self, stream)
        self._connections.add(connection)
        self._accepted += 1
        try:
            await connection.run()
        except Exception:  # boundary: one connection must not end the others
            logger.exception("rpc.connection.failed")
        finally:
            self._connections.discard(connection)
            sent, received = self._ended_bytes
            more_sent, more_received = connection.bytes_moved
            self._ended_bytes = (sent + more_sent, received + more_received)

    def _drop_silent(self) -> bool:
        """End the oldest connection whose client has not spoken yet; False if there is none.

        So nobody is kept out by those that connect and say nothing.
        """
        silent = [one for one in self._connections if one.silent]
        if not silent:
            return False
        self.admission.log_full()
        oldest = min(silent, key=lambda one: one.number)
        oldest.give_up()
        self._connections.discard(oldest)
        return True

    async def stop(
        self, grace: float, *, at_last: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Stop: accept nothing more, let running calls finish, then end them with UNAVAILABLE.

        Args:
            grace: Seconds that running calls get.
            at_last: What is still to be done before the connections are closed, and the standing
                calls with them. It bounds itself.

        Cancellation:
            Ends the running calls at once; they still get UNAVAILABLE.
        """
        self._stopping = True
        for accepting in self._accepting:
            accepting.cancel()
        connections = list(self._connections)
        for connection in connections:
            connection.drain()
        try:
            with anyio.move_on_after(grace):
                for connection in connections:
                    await connection.idle.wait()
            if at_last is not None:
                await at_last()
        finally:
            for connection in connections:
                connection.cancel_calls()
            with anyio.move_on_after(_CANCEL_TIMEOUT, shield=True) as scope:
                for connection in connections:
                    await connection.ended.wait()
            if scope.cancelled_caught:
                logger.warning("rpc.server.stop: handlers did not end within %g s", _CANCEL_TIMEOUT)
                for connection in connections:
                    connection.abandon()

    def codec_of(self, handler: Any, subtype: str | None) -> CodecBase | None:
        """How the messages of a call of `handler` are written; None: not in the format asked for."""
        if subtype is None:
            return None
        if isinstance(handler, CodecHandler):
            return handler.codecs.get(subtype)
        return self.codec if subtype == self._subtype else None

    # --- header blocks -----------------------------------------------------------------------

    def details_codec(self) -> StatusDetailsCodecBase | None:
        """How the details of an error are encoded."""
        if self._own_details_codec is None and self._default_codecs:
            return default_details_codec()
        return self._own_details_codec

    def response_block(
        self,
        encoding: MessageEncoding | None,
        fields: Sequence[Field],
        subtype: str | None = None,
    ) -> bytes:
        """The header section of a response.

        `subtype` names the message format, where it is not the server's.
        """
        key = encoding if subtype is None else (encoding, subtype)
        block = self._blocks.get(key)
        if block is None:
            said = self._content_type if subtype is None else content_type_of(subtype)
            head = [(":status", "200"), ("content-type", said)]
            if encoding is not None:
                head.append(("grpc-encoding", encoding.name))
            block = self._blocks[key] = self._encoder.encode(head)
        if fields:
            block += self._encoder.encode(fields, huffman=False)
        return block

    def trailer_block(
        self,
        status: CallStatus,
        fields: Sequence[Field],
        *,
        with_headers: bool,
        limit: int,
        subtype: str | None = None,
    ) -> bytes:
        """The trailer section; with the response's headers, where none were sent.

        What is larger than the client takes (`limit`) would cost it the connection, and so all
        its other calls: then only the status is sent.
        """
        said: Sequence[Field] = ()
        if status.message is not None or status.details is not None:
            said = status_fields(status, self.details_codec())
        if (said or fields) and header_list_size((*said, *fields)) > limit:
            logger.warning("rpc.trailers.too_large limit=%d status=%s", limit, status)
            message = (status.message or "the trailing metadata is too large for the client")[:200]
            code = Status.RESOURCE_EXHAUSTED if status.status is Status.OK else status.status
            return self.trailer_block(
                CallStatus(code, message),
                (),
                with_headers=with_headers,
                limit=UNLIMITED,
                subtype=subtype,
            )
        if said:
            block = self._encoder.encode(said)
            if with_headers:
                block = self.response_block(None, (), subtype) + block
        else:
            key = (status.status, subtype if with_headers else None, with_headers)
            cached = self._blocks.get(key)
            if cached is None:
                cached = self._encoder.encode(status_fields(status, None))
                if with_headers:
                    cached = self.response_block(None, (), subtype) + cached
                self._blocks[key] = cached
            block = cached
        if fields:
            block += self._encoder.encode(fields, huffman=False)
        return block

    def refusal_block(self, refusal: Refusal) -> bytes:
        """The whole answer to a request that no handler gets."""
        head = [
            (":status", refusal.http_status),
            ("content-type", self._content_type),
            ("grpc-accept-encoding", ACCEPTED),
        ]
        return self._encoder.encode([*head, *status_fields(refusal.status, None), *refusal.fields])


class _ServerConnection:
    """One connection and the calls on it."""

    def __init__(self, server: Server, stream: ByteStream) -> None:
        self._server = server
        self._connection = RPCConnection(
            stream, client_side=False, options=server.options, accept=self._accept
        )
        self._calls: set[AnyCall] = set()
        self._spawn: Spawner | None = None
        self._draining = False
        self.idle = anyio.Event()
        self.ended = anyio.Event()

    async def run(self) -> None:
        """Live as long as the connection, and as its handlers take to notice that it is gone."""
        try:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    self._spawn = spawn = Spawner(tasks)
                    try:
                        await self._connection.run()
                    finally:
                        spawn.close()
                        # Whoever called is gone.
                        for call in list(self._calls):
                            call.on_lost(self._connection.lost or ConnectionError())
        finally:
            self._spawn = None
            self.idle.set()
            self.ended.set()

    @property
    def number(self) -> int:
        """The later a connection was made, the higher."""
        return self._connection.number

    @property
    def bytes_moved(self) -> tuple[int, int]:
        """How many octets were sent and received on it."""
        return self._connection.bytes_sent, self._connection.bytes_received

    @property
    def silent(self) -> bool:
        """Whether the client has sent no HTTP/2 yet."""
        return not self._connection.ready

    def give_up(self) -> None:
        """End a connection whose client says nothing, for others to have its place."""
        self._connection.give_up("others need its place")

    def drain(self) -> None:
        """Take no more calls; close once the running ones have ended."""
        self._draining = True
        self._connection.h2.go_away()
        self._connection.flush()
        self._close_if_idle()

    def cancel_calls(self) -> None:
        """End the running calls, then the connection."""
        for call in list(self._calls):
            call.cancel_handler(_CUT)
        self._draining = True
        self._close_if_idle()

    def abandon(self) -> None:
        """Give up handlers that do not end: their clients are told, and the connection closed."""
        for call in list(self._calls):
            call.finish_now(_CUT)
        self.idle.set()
        self._connection.close()

    def _close_if_idle(self) -> None:
        if not self._draining:
            return
        standing = self._server.standing
        if all(call.head.path in standing for call in self._calls):
            self.idle.set()
        if not self._calls:
            self._connection.close()

    def _accept(self, stream: H2Stream, block: HeaderBlock, _end_stream: bool) -> None:
        head = request_head(block)
        server = self._server
        refusal = head.refusal
        handler = server.methods.get(head.path) or server.find_generic(head)
        codec = None if handler is None else server.codec_of(handler, head.subtype)
        if refusal is None:
            if self._draining:
                refusal = Refusal(_STOPPING)
            elif len(self._calls) >= 2 * server.options.max_concurrent_streams:
                # Their streams are gone, but their handlers are not.
                message = "too many handlers of calls that were given up have not ended"
                refusal = Refusal(CallStatus(Status.UNAVAILABLE, message))
            elif handler is None:
                message = f"there is no method {head.path[:200]}"
                refusal = Refusal(CallStatus(Status.UNIMPLEMENTED, message))
            elif codec is None:
                message = f"messages in the format {head.subtype!r}, which is not served"
                refusal = Refusal(CallStatus(Status.UNKNOWN, message), "415")
            else:
                refusal = server.admission.refuse_call(head.path)
        if refusal is not None or handler is None or codec is None or self._spawn is None:
            self._refuse(stream, refusal)
            return
        deadline = None if head.timeout is None else Deadline.from_timeout(head.timeout)
        call: AnyCall = ServerStream(
            server, self._connection, stream, head, handler, deadline, codec
        )
        start = self._spawn.start_at_once if self._connection.is_waited_for else self._spawn.start
        self._calls.add(call)
        server.admission.begin_call(head.path)
        call.task = start(self._run_call, call, handler, name=head.path)

    def _refuse(self, stream: H2Stream, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._server.admission.counts.refuse(refusal.status.status)
            h2 = self._connection.h2
            h2.send_headers(stream, self._server.refusal_block(refusal), end_stream=True)
            if not stream.closed:
                h2.reset_stream(stream, ErrorCode.NO_ERROR)

    async def _run_call(self, call: AnyCall, handler: Handler) -> None:
        """Run one handler. Whatever it does, the client gets a status, and nobody else notices."""
        status: CallStatus | None = None
        ended = _ENDED
        current_call.set(call)
        try:
            if call.cancel_status is not None:
                pass  # It was given up before it had begun.
            elif call.due is None:
                status = await self._status_of(call, handler)
            else:
                current_deadline.set(call.due)
                with anyio.CancelScope(deadline=call.due.at) as scope:
                    status = await self._status_of(call, handler)
                if scope.cancelled_caught:
                    ended = _OUT_OF_TIME
            if status is not None and self._server.events.active:
                status = await self._announce(call, status)
        finally:
            if status is None:  # it was cancelled, or the handler leaves the interpreter
                status = call.cancel_status or ended
            self._finish(call, status)
            call.task = None
            self._calls.discard(call)
            # A handler may have sent another one itself.
            self._server.admission.end_call(call.head.path, (call.final_status or status).status)
            if self._draining:
                self._close_if_idle()

    @staticmethod
    async def _announce(call: AnyCall, status: CallStatus) -> CallStatus:
        """Send the trailers, with what listeners make of them."""
        try:
            await call.finish(status)
        except Exception as error:  # noqa: BLE001 - boundary: as if the handler had raised it
            return _status_of_exception(call, error)
        return status

    @staticmethod
    def _finish(call: AnyCall, status: CallStatus) -> None:
        try:
            call.finish_now(status)
        except Exception:  # boundary: details that the codec does not take are the handler's doing
            logger.exception("rpc.status.failed method=%s", call.head.path)
            call.finish_now(CallStatus(Status.INTERNAL, "the status could not be encoded"))
        finally:
            call.close()

    async def _status_of(self, call: AnyCall, handler: Handler) -> CallStatus:
        """Run the handler, and make its return or exception a status."""
        try:
            func = handler.func
            events = self._server.events
            if events.active:
                metadata: Any = call.metadata
                peer: Any = call.peer
                call.metadata, func = await events.recv_request(
                    metadata,
                    func,
                    method_name=call.head.path,
                    deadline=call.deadline,
                    content_type=f"application/grpc+{call.head.subtype}",
                    user_agent=call.user_agent,
                    peer=peer,
                )
            await func(call)
        except GRPCError as error:
            return CallStatus(error.status, error.message, error.details)
        except Exception as error:  # noqa: BLE001 - boundary: an exception of a handler becomes a status
            return _status_of_exception(call, error)
        except BaseExceptionGroup as group:
            # A task group of the handler, on trio: its errors and our cancellation together.
            cancelled, others = group.split(anyio.get_cancelled_exc_class())
            if cancelled is None or not isinstance(others, ExceptionGroup):
                raise
            _status_of_exception(call, others)
            raise cancelled from None
        return call.completion()


def _status_of_exception(call: AnyCall, error: Exception) -> CallStatus:
    lone: BaseException = error
    while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
        lone = lone.exceptions[0]  # A handler with a task group of its own.
    if isinstance(lone, GRPCError):
        return CallStatus(lone.status, lone.message, lone.details)
    if call.cancel_status is not None and isinstance(error, ExceptionGroup):
        _, others = error.split(GRPCError)
        if others is None:  # Several tasks of the handler heard that the call has ended.
            return call.cancel_status
    logger.error("rpc.handler.failed method=%s", call.head.path, exc_info=error)
    return CallStatus(Status.UNKNOWN, f"{type(lone).__name__}: {lone}"[:_LONGEST_MESSAGE])
