"""Servicers in grpcio's form on our server: what `add_XServicer_to_server(handler, server)` calls.

A servicer's methods may be coroutine functions and async generators, as for `grpc.aio`, or plain
functions and generators, which run in threads.
"""

from __future__ import annotations

import inspect
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import to_thread
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger

from ._codecs import CodecHandler
from ._grpcio import FunctionCodec
from ._servicer_context import (
    BlockingContext,
    Metadatum,
    ServicerContext,
    invocation_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ._request import RequestHead
    from ._server import Server
    from ._server_stream import ServerStream

    Run = Callable[[ServerStream[Any, Any], ServicerContext], Awaitable[None]]

logger = event_logger(__name__)

_NAMES = {
    Cardinality.UNARY_UNARY: "unary_unary",
    Cardinality.UNARY_STREAM: "unary_stream",
    Cardinality.STREAM_UNARY: "stream_unary",
    Cardinality.STREAM_STREAM: "stream_stream",
}


def adapted(method: Any, server: Server) -> CodecHandler:
    """What our server runs for a `grpc.RpcMethodHandler`."""
    function = ServicerMethod(method, server)
    handler = CodecHandler(
        function,
        function.cardinality,
        # Generated code gives methods of the messages' classes; reflection asks for these.
        getattr(method.request_deserializer, "__self__", bytes),
        getattr(method.response_serializer, "__objclass__", bytes),
    )
    codec = FunctionCodec(method.response_serializer, method.request_deserializer)
    handler.codecs = {codec.__content_subtype__: codec}
    return handler


def listed_methods(generic: Any) -> dict[str, Any] | None:
    """The methods of a `grpc.GenericRpcHandler` by their full paths; None: it does not list them."""
    methods: Any = getattr(generic, "_method_handlers", None)
    return methods if isinstance(methods, dict) else None


def is_adapted(handler: Handler | None, method: Any) -> bool:
    """Whether `handler` is what stands for this very `grpc.RpcMethodHandler`."""
    function = None if handler is None else handler.func
    return isinstance(function, ServicerMethod) and function.method is method


class CallDetails(NamedTuple):
    """What is known of a call before its handler is: `grpc.HandlerCallDetails`."""

    method: str
    invocation_metadata: tuple[Metadatum, ...]


def found_by(generics: Sequence[Any], head: RequestHead, server: Server) -> Handler | None:
    """The handler that one of the `grpc.GenericRpcHandler`s has for this request."""
    details = CallDetails(head.path, invocation_metadata(head.metadata(), head.user_agent))
    for generic in generics:
        try:
            method = generic.service(details)
        except Exception:  # boundary: a request is refused, and nobody else notices
            logger.exception("rpc.generic.failed method=%s", head.path)
            continue
        if method is not None:
            return adapted(method, server)
    return None


class ServicerChain:
    """Server interceptors of `grpc.aio`'s form before a handler.

    They are given the servicer's method and may answer with another one. The method of a handler
    that is no servicer's they can only pass on, or replace.

    Args:
        handler: What they are before.
        interceptors: The interceptors.
        server: The server.
    """

    def __init__(self, handler: Handler, interceptors: Sequence[Any], server: Server) -> None:
        function: Any = handler.func
        self._function = function
        self._interceptors = interceptors
        self._server = server
        self._method = (
            function.method
            if isinstance(function, ServicerMethod)
            else ForeignMethod(*handler.cardinality.value)
        )

    async def __call__(self, stream: ServerStream[Any, Any]) -> None:
        details = CallDetails(
            stream.head.path, invocation_metadata(stream.metadata, stream.user_agent)
        )
        try:
            method = await self._ask(0, details)
        except GRPCError:
            raise
        except Exception as error:
            logger.exception("rpc.interceptor.failed method=%s", stream.head.path)
            raise GRPCError(Status.UNKNOWN, f"Unexpected {type(error)}: {error}") from error
        if method is None:
            raise GRPCError(Status.UNIMPLEMENTED, "Method not found!")
        if method is self._method:
            await self._function(stream)
            return
        handler = adapted(method, self._server)
        [codec] = handler.codecs.values()
        stream.use_handler(handler, codec)
        await handler.func(stream)

    async def _ask(self, index: int, details: Any) -> Any:
        """Ask the interceptors from this one on; the last one's continuation is the method."""
        if index == len(self._interceptors):
            return self._method
        following = partial(self._ask, index + 1)
        return await self._interceptors[index].intercept_service(following, details)


class ForeignMethod(NamedTuple):
    """What stands for the method of a handler that is no servicer's."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: None = None
    response_serializer: None = None
    unary_unary: None = None
    unary_stream: None = None
    stream_unary: None = None
    stream_stream: None = None


class ServicerMethod:
    """One method of a servicer, called with the stream of each call.

    Args:
        method: The `grpc.RpcMethodHandler`.
        server: Whose threads plain functions run in.
    """

    def __init__(self, method: Any, server: Server) -> None:
        by_streams: Any = Cardinality
        self.cardinality: Cardinality = by_streams(
            (
                bool(method.request_streaming),
                bool(method.response_streaming),
            )
        )
        self.method = method
        self._server = server
        self._function: Any = getattr(method, _NAMES[self.cardinality])
        self._run = self._way()

    def _way(self) -> Run:
        function = self._function
        if not inspect.isroutine(function) and not isinstance(function, partial):
            function = type(function).__call__  # An object that can be called.
        if inspect.isasyncgenfunction(function):
            return self._run_generator
        if inspect.iscoroutinefunction(function):
            if self.cardinality.server_streaming:
                return self._run_writer
            return self._run_unary
        if self.cardinality.server_streaming:
            return self._run_generator_in_thread
        return self._run_unary_in_thread

    async def __call__(self, stream: ServerStream[Any, Any]) -> None:
        context = ServicerContext(stream)
        try:
            await self._run(stream, context)
            if context.aborted:
                logger.error("rpc.abort.suppressed method=%s", stream.head.path)
            else:
                await context.finish()
        except GRPCError as error:
            if context.ended:
                raise
            # What grpclib's users raise is as good as `abort`.
            context.set_code(error.status)
            await context.finish(details=error.message)
        except Exception as error:  # noqa: BLE001 - boundary: an exception of a handler becomes a status
            await self._fail(stream, context, error)
        finally:
            context.run_callbacks()

    @staticmethod
    async def _fail(
        stream: ServerStream[Any, Any], context: ServicerContext, error: Exception
    ) -> None:
        if context.caused(error):
            return
        if stream.cancel_status is not None:
            raise error  # The call is over: it concerns nobody but the log.
        lone: BaseException = error
        while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
            lone = lone.exceptions[0]  # A handler with a task group of its own.
        logger.error("rpc.handler.failed method=%s", stream.head.path, exc_info=error)
        if not context.ended:
            status = Status.UNKNOWN if context.status is Status.OK else context.status
            await context.finish(status, f"Unexpected {type(lone)}: {lone}")

    async def _request(self, stream: ServerStream[Any, Any], context: ServicerContext) -> Any:
        """What the method's first argument is."""
        if self.cardinality.client_streaming:
            return Requests(context)
        return await stream.recv_message()

    # --- in the event loop -------------------------------------------------------------------

    async def _run_unary(self, stream: ServerStream[Any, Any], context: ServicerContext) -> None:
        response = await self._function(await self._request(stream, context), context)
        await self._respond(context, response)

    @staticmethod
    async def _respond(context: ServicerContext, response: Any) -> None:
        """Send a unary response, unless the handler has set another status."""
        if context.status is Status.OK and not context.aborted:
            await context.write(response)

    async def _run_writer(self, stream: ServerStream[Any, Any], context: ServicerContext) -> None:
        await self._function(await self._request(stream, context), context)

    async def _run_generator(
        self, stream: ServerStream[Any, Any], context: ServicerContext
    ) -> None:
        request = await self._request(stream, context)
        async with aclosing(self._function(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    # --- in threads --------------------------------------------------------------------------

    async def _run_unary_in_thread(
        self, stream: ServerStream[Any, Any], context: ServicerContext
    ) -> None:
        response = await self._in_thread(stream, context, self._function)
        await self._respond(context, response)

    async def _run_generator_in_thread(
        self, stream: ServerStream[Any, Any], context: ServicerContext
    ) -> None:
        await self._in_thread(stream, context, self._write_all)

    def _write_all(self, request: Any, blocking: BlockingContext) -> None:
        """In the thread: send what the method's generator, or other iterable, gives."""
        responses = self._function(request, blocking)
        try:
            for response in responses:
                blocking.write(response)
        finally:
            if hasattr(responses, "close"):
                responses.close()

    async def _in_thread(
        self,
        stream: ServerStream[Any, Any],
        context: ServicerContext,
        function: Callable[[Any, BlockingContext], Any],
    ) -> Any:
        blocking = BlockingContext(context)
        request = (
            BlockingRequests(blocking)
            if self.cardinality.client_streaming
            else await stream.recv_message()
        )
        # A thread cannot be interrupted. It learns from its context that the call is over.
        return await to_thread.run_sync(
            function, request, blocking, limiter=self._server.threads(), abandon_on_cancel=True
        )


class Requests:
    """The requests of a call, as an async iterator."""

    def __init__(self, context: ServicerContext) -> None:
        self._context = context

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        message = await self._context.next_request()
        if message is None:
            raise StopAsyncIteration
        return message


class BlockingRequests:
    """The requests of a call, as an iterator for a thread."""

    def __init__(self, context: BlockingContext) -> None:
        self._context = context

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = self._context.next_request()
        if message is None:
            raise StopIteration
        return message
