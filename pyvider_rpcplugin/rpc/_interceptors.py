"""Interceptors: functions that are called before each call, and told how it ended.

One form serves clients and servers, calls of all types, and both event loops. There is no block
around the call, so that nothing is held while control is with the caller. A server also takes
interceptors of `grpc.aio`'s form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import anyio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import ProtocolError

from ._codecs import CodecHandler
from ._metadata import Deadline, current_deadline
from ._status import CallStatus, status_of_error

if TYPE_CHECKING:
    from grpclib.metadata import _Metadata as Metadata
    from grpclib.protocol import Peer as PeerBase

    from ._server import Server
    from ._server_stream import ServerStream

logger = event_logger(__name__)


class InterceptedCall:
    """A call that is about to begin.

    Attributes:
        method: The method's full path, `/package.Service/Method`.
        is_client: Whether the call is made here; otherwise it is handled here.
        client_streaming: Whether its requests are streamed.
        server_streaming: Whether its responses are.
        metadata: On a client what is sent with the request, to be changed at will; on a server
            what came with it.
        deadline: By when it must be complete; None: whenever.
        peer: On a server, who calls.
    """

    __slots__ = (
        "_deadline_type",
        "client_streaming",
        "deadline",
        "is_client",
        "metadata",
        "method",
        "peer",
        "server_streaming",
    )

    def __init__(
        self,
        method: str,
        cardinality: Cardinality,
        metadata: Metadata,
        deadline: Deadline | None,
        peer: PeerBase | None,
        deadline_type: type[Deadline] = Deadline,
    ) -> None:
        self.method: str = method
        self.is_client: bool = peer is None
        self.client_streaming: bool = cardinality.client_streaming
        self.server_streaming: bool = cardinality.server_streaming
        self.metadata: Metadata = metadata
        self.deadline: Deadline | None = deadline
        self.peer: PeerBase | None = peer
        self._deadline_type = deadline_type

    def limit(self, timeout: float) -> None:
        """Let the call take no longer than `timeout` seconds from now; a deadline only gets earlier."""
        deadline = self._deadline_type.from_timeout(timeout)
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline

    def __repr__(self) -> str:
        return f"<InterceptedCall {self.method}>"


Observer = Callable[[CallStatus], object]
"""What is called with the status of a call at its end; it must not wait for anything."""

Interceptor = Callable[[InterceptedCall], Awaitable[Observer | None]]
"""What is called before each call. It may wait, and refuse the call by raising a `GRPCError`."""


def notify(observers: list[Observer], status: CallStatus) -> None:
    """Tell observers how a call ended, and forget them; who came last is told first."""
    while observers:
        observer = observers.pop()
        try:
            observer(status)
        except Exception:  # boundary: the call is over, whatever an observer does
            logger.exception("rpc.observer.failed")


async def intercept(
    interceptors: Iterable[Interceptor], call: InterceptedCall, observers: list[Observer]
) -> None:
    """Let interceptors see a call, one after the other.

    Raises:
        GRPCError: One of them refuses it. Who has seen it by then is told.
    """
    try:
        for interceptor in interceptors:
            observer = await interceptor(call)
            if observer is not None:
                observers.append(observer)
    except BaseException as error:
        notify(observers, status_of_error(error))
        raise


def check_client_interceptors(interceptors: Iterable[Any]) -> tuple[Interceptor, ...]:
    """The interceptors of a client.

    Raises:
        ProtocolError: One is none, or of grpcio's form.
    """
    found = tuple(interceptors)
    for one in found:
        if any(hasattr(one, f"intercept_{kind}") for kind in _KINDS) or not callable(one):
            msg = f"{type(one).__name__} is no interceptor of a client"
            raise ProtocolError(msg, hint="give an async function that takes the call")
    return found


_KINDS = ("service", "unary_unary", "unary_stream", "stream_unary", "stream_stream")


# --- on a server ----------------------------------------------------------------------------------


class ServerInterceptors:
    """The interceptors of a server.

    Args:
        interceptors: Async functions that take the call, and objects of `grpc.aio`'s form, which
            are asked after all of those.
        server: The server.

    Raises:
        ProtocolError: One is neither.
    """

    def __init__(self, interceptors: Iterable[Any], server: Server) -> None:
        self.own: list[Interceptor] = []
        self.grpcio: list[Any] = []
        self.server = server
        for one in interceptors:
            if hasattr(one, "intercept_service"):
                self.grpcio.append(one)
            elif callable(one):
                self.own.append(one)
            else:
                msg = f"{type(one).__name__} is no interceptor of a server"
                raise ProtocolError(msg, hint="give an async function that takes the call")

    def around(self, handler: Handler) -> Handler:
        """A handler before whose calls they are called."""
        inner = handler.func
        if self.grpcio:
            from ._servicer import ServicerChain  # noqa: PLC0415 - only where it is used

            inner = ServicerChain(handler, self.grpcio, self.server)
        if self.own:
            inner = _Intercepted(inner, tuple(self.own))
        replaced = handler._replace(func=inner)
        if isinstance(handler, CodecHandler):
            cast("CodecHandler", replaced).codecs = handler.codecs
        return replaced

    def around_all(self, methods: Mapping[str, Handler]) -> dict[str, Handler]:
        """The same of all these handlers."""
        return {path: self.around(handler) for path, handler in methods.items()}


class _Intercepted:
    """A handler's function with interceptors before it."""

    def __init__(
        self,
        function: Callable[[ServerStream[Any, Any]], Awaitable[None]],
        interceptors: tuple[Interceptor, ...],
    ) -> None:
        self._function = function
        self._interceptors = interceptors

    async def __call__(self, stream: ServerStream[Any, Any]) -> None:
        metadata: Any = stream.metadata
        call = InterceptedCall(
            stream.head.path, stream.cardinality, metadata, stream.due, stream.peer
        )
        observers: list[Observer] = []
        await intercept(self._interceptors, call, observers)
        if observers:
            stream.observers = observers
        stream.metadata = call.metadata
        if call.deadline is stream.due or call.deadline is None:
            await self._function(stream)
            return
        stream.due = call.deadline
        current_deadline.set(call.deadline)
        with anyio.CancelScope(deadline=call.deadline.at) as scope:
            await self._function(stream)
        if scope.cancelled_caught:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
