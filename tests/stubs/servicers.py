"""The echo service as grpcio's users write it; what a method does is said by its request's text.

The same classes run on grpcio's server, in a process of its own, and on ours.
"""

from __future__ import annotations

import threading
from typing import Any

import anyio
import grpc  # type: ignore[import-untyped]

from tests.protos.echo_pb2 import EchoReply, EchoRequest

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Events:
    """What has happened, by name; waited for by other calls."""

    def __init__(self) -> None:
        self._events: dict[str, anyio.Event] = {}

    def __getitem__(self, name: str) -> anyio.Event:
        return self._events.setdefault(name, anyio.Event())


def show(pairs: Any) -> str:
    """Metadata, without what clients and servers say of themselves."""
    return repr(sorted((k, v) for k, v in pairs if k.startswith("x-")))


class Servicer:
    """Written for `grpc.aio`."""

    def __init__(self) -> None:
        self.events = Events()

    # What a command does; it returns the text of the reply.

    async def echo(self, request: Any, context: Any, rest: str) -> str:
        return request.text

    async def abort(self, request: Any, context: Any, rest: str) -> str:
        code, _, details = rest.partition(":")
        await context.abort(CODES[int(code)], details)
        return "unreachable"

    async def abort_trailing(self, request: Any, context: Any, rest: str) -> str:
        trailing = (("x-text", rest), ("x-octets-bin", b"\0\xff"))
        await context.abort(grpc.StatusCode.ABORTED, "with metadata", trailing)
        return "unreachable"

    async def abort_later(self, request: Any, context: Any, rest: str) -> str:
        context.set_trailing_metadata((("x-text", "before"),))
        context.set_details("set before")
        await context.abort(grpc.StatusCode.DATA_LOSS)
        return "unreachable"

    async def abort_with_status(self, request: Any, context: Any, rest: str) -> str:
        class Status(grpc.Status):  # type: ignore[misc]
            code = grpc.StatusCode.OUT_OF_RANGE
            details = "from a status"
            trailing_metadata = (("grpc-status-details-bin", b"\x08\x0b"), ("x-text", "t"))

        await context.abort_with_status(Status())
        return "unreachable"

    async def abort_twice(self, request: Any, context: Any, rest: str) -> str:
        try:
            await context.abort(grpc.StatusCode.ABORTED, "first")
        except grpc.aio.AbortError:
            await context.abort(grpc.StatusCode.INTERNAL, "second")
        return "unreachable"

    async def abort_suppressed(self, request: Any, context: Any, rest: str) -> str:
        try:
            await context.abort(grpc.StatusCode.ABORTED, "suppressed")
        except grpc.aio.AbortError:
            return "suppressed"
        return "unreachable"

    async def set_code(self, request: Any, context: Any, rest: str) -> str:
        code, _, details = rest.partition(":")
        context.set_code(CODES[int(code)])
        context.set_details(details)
        return f"{context.code()} {context.details()}"

    async def nothing_set(self, request: Any, context: Any, rest: str) -> str:
        return f"{context.code()} {context.details()!r} {context.trailing_metadata()!r}"

    async def set_ok(self, request: Any, context: Any, rest: str) -> str:
        context.set_code(grpc.StatusCode.OK)
        context.set_details("all is well")
        return "ok"

    async def fail(self, request: Any, context: Any, rest: str) -> str:
        raise ValueError(rest)

    async def fail_with_code(self, request: Any, context: Any, rest: str) -> str:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("these are replaced")
        context.set_trailing_metadata((("x-text", "kept"),))
        raise KeyError(rest)

    async def metadata(self, request: Any, context: Any, rest: str) -> str:
        return show(context.invocation_metadata())

    async def metadatum(self, request: Any, context: Any, rest: str) -> str:
        [found] = [m for m in context.invocation_metadata() if m.key == "x-text"]
        return f"{found.key} {found.value} {type(context.invocation_metadata()).__name__}"

    async def agent(self, request: Any, context: Any, rest: str) -> str:
        return str([m.key for m in context.invocation_metadata() if m.key == "user-agent"])

    async def initial(self, request: Any, context: Any, rest: str) -> str:
        await context.send_initial_metadata((("x-text", "initial"), ("x-octets-bin", b"\1\2")))
        return "sent"

    async def initial_twice(self, request: Any, context: Any, rest: str) -> str:
        await context.send_initial_metadata((("x-text", "initial"),))
        try:
            await context.send_initial_metadata((("x-text", "again"),))
        except grpc.aio.UsageError as error:
            return str(error)
        return "no error"

    async def trailing(self, request: Any, context: Any, rest: str) -> str:
        context.set_trailing_metadata((("x-text", "one"), ("x-text", "two"), ("x-o-bin", b"\xff")))
        return repr(context.trailing_metadata())

    async def trailing_invalid(self, request: Any, context: Any, rest: str) -> str:
        try:
            context.set_trailing_metadata({"x-text": "a dict"})
        except TypeError:
            return "TypeError"
        return "no error"

    async def remaining(self, request: Any, context: Any, rest: str) -> str:
        remaining = context.time_remaining()
        return "None" if remaining is None else str(0 < remaining <= 60)

    async def done(self, request: Any, context: Any, rest: str) -> str:
        def ended(context: Any) -> None:
            self.events[rest].set()

        context.add_done_callback(ended)
        return f"{context.done()} {context.cancelled()}"

    async def peer(self, request: Any, context: Any, rest: str) -> str:
        identities = context.peer_identities(), context.peer_identity_key()
        security = context.auth_context().get("transport_security_type")
        return f"{context.peer().partition(':')[0]} {identities} {security}"

    async def late_compression(self, request: Any, context: Any, rest: str) -> str:
        await context.send_initial_metadata(())
        try:
            context.set_compression(grpc.Compression.Gzip)
        except RuntimeError as error:
            return str(error)
        return "no error"

    async def compressed(self, request: Any, context: Any, rest: str) -> str:
        context.set_compression(grpc.Compression.Gzip)
        return "x" * 1000

    async def uncompressed(self, request: Any, context: Any, rest: str) -> str:
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return "x" * 1000

    async def hang(self, request: Any, context: Any, rest: str) -> str:
        self.events[f"{rest} begun"].set()
        try:
            await anyio.Event().wait()
        finally:
            self.events[rest].set()
        return "unreachable"

    async def wait(self, request: Any, context: Any, rest: str) -> str:
        await self.events[rest].wait()
        return f"{rest} has happened"

    async def happen(self, request: Any, context: Any, rest: str) -> str:
        self.events[rest].set()
        return "it has"

    async def nothing(self, request: Any, context: Any, rest: str) -> None:
        return None

    async def _obey(self, request: Any, context: Any) -> str:
        name, _, rest = request.text.partition(":")
        command = getattr(self, name, None) if name and not name.startswith("_") else None
        if command is None:
            return request.text
        text: str = await command(request, context, rest)
        return text

    # The methods.

    async def Unary(self, request: EchoRequest, context: Any) -> Any:
        text: Any = await self._obey(request, context)
        return None if text is None else EchoReply(data=request.data, text=text)

    async def ServerStream(self, request: EchoRequest, context: Any) -> Any:
        for index in range(request.count):
            yield EchoReply(data=request.data, index=index)
        text = await self._obey(request, context)
        if text:
            yield EchoReply(text=text, index=request.count)

    async def ClientStream(self, request_iterator: Any, context: Any) -> Any:
        texts = []
        async for request in request_iterator:
            texts.append(await self._obey(request, context))
            if request.count:  # The rest is not wanted.
                break
        return EchoReply(text=" ".join(texts), index=len(texts))

    async def Bidi(self, request_iterator: Any, context: Any) -> Any:
        index = 0
        async for request in request_iterator:
            yield EchoReply(text=await self._obey(request, context), index=index)
            index += 1


class ReaderWriter(Servicer):
    """The same with `read` and `write`."""

    async def ServerStream(self, request: EchoRequest, context: Any) -> None:
        async for reply in Servicer.ServerStream(self, request, context):
            await context.write(reply)

    async def ClientStream(self, request_iterator: Any, context: Any) -> Any:
        texts = []
        while (request := await context.read()) is not grpc.aio.EOF:
            texts.append(await self._obey(request, context))
            if request.count:
                break
        return EchoReply(text=" ".join(texts), index=len(texts))

    async def Bidi(self, request_iterator: Any, context: Any) -> None:
        index = 0
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(EchoReply(text=await self._obey(request, context), index=index))
            index += 1


class Blocking:
    """Written for grpcio's threads."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}

    def _event(self, name: str) -> threading.Event:
        return self._events.setdefault(name, threading.Event())

    def _obey(self, request: Any, context: Any) -> str:
        name, _, rest = request.text.partition(":")
        match name:
            case "abort":
                code, _, details = rest.partition(":")
                context.abort(CODES[int(code)], details)
            case "abort_trailing":
                trailing = (("x-text", rest), ("x-octets-bin", b"\0\xff"))
                context.abort(grpc.StatusCode.ABORTED, "with metadata", trailing)
            case "set_code":
                code, _, details = rest.partition(":")
                context.set_code(CODES[int(code)])
                context.set_details(details)
            case "fail":
                raise ValueError(rest)
            case "metadata":
                return show(context.invocation_metadata())
            case "initial":
                context.send_initial_metadata((("x-text", "initial"), ("x-octets-bin", b"\1\2")))
            case "trailing":
                context.set_trailing_metadata((("x-text", "one"), ("x-text", "two")))
            case "remaining":
                remaining = context.time_remaining()
                return "None" if remaining is None else str(0 < remaining <= 60)
            case "done":
                context.add_callback(self._event(rest).set)
            case "wait":
                return str(self._event(rest).wait(5))
            case "thread":
                return str(threading.current_thread() is not threading.main_thread())
            case "wait_inactive":
                while context.is_active():
                    self._event("never").wait(0.01)
                self._event(rest).set()
        return request.text

    def Unary(self, request: EchoRequest, context: Any) -> EchoReply:
        return EchoReply(data=request.data, text=self._obey(request, context))

    def ServerStream(self, request: EchoRequest, context: Any) -> Any:
        try:
            for index in range(request.count):
                yield EchoReply(data=request.data, index=index)
            text = self._obey(request, context)
            if text:
                yield EchoReply(text=text, index=request.count)
        finally:
            if request.text.startswith("closed:"):
                self._event(request.text.partition(":")[2]).set()

    def ClientStream(self, request_iterator: Any, context: Any) -> EchoReply:
        texts = [self._obey(request, context) for request in request_iterator]
        return EchoReply(text=" ".join(texts), index=len(texts))

    def Bidi(self, request_iterator: Any, context: Any) -> Any:
        for index, request in enumerate(request_iterator):
            yield EchoReply(text=self._obey(request, context), index=index)


class Passing(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sees calls, and counts those that it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.seen += 1
        return await continuation(details)


class Deciding(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Does with a call what its metadata says."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        match dict(details.invocation_metadata).get("x-text"):
            case "fail":
                raise ValueError("in the interceptor")
            case "nobody":
                return None
            case "refuse":
                return grpc.unary_unary_rpc_method_handler(self._refuse)
            case "wrap":
                return await self._wrapped(await continuation(details))
        return await continuation(details)

    @staticmethod
    async def _refuse(request: Any, context: Any) -> None:
        trailing = (("x-why", "because"),)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "refused", trailing)

    @staticmethod
    async def _wrapped(handler: Any) -> Any:
        serializers = handler.request_deserializer, handler.response_serializer
        if handler.response_streaming:

            async def stream(request: Any, context: Any) -> Any:
                async for reply in handler.unary_stream(request, context):
                    yield EchoReply(text=f"wrapped {reply.text}", index=reply.index)

            return grpc.unary_stream_rpc_method_handler(stream, *serializers)

        async def unary(request: Any, context: Any) -> Any:
            context.set_trailing_metadata((("x-wrapped", "yes"),))
            reply = await handler.unary_unary(request, context)
            return EchoReply(text=f"wrapped {reply.text}")

        return grpc.unary_unary_rpc_method_handler(unary, *serializers)


class Intercepted(Servicer):
    """With interceptors before it."""


INTERCEPTORS = {"intercepted": lambda: [Passing(), Deciding(), Passing()]}
SERVICERS = {
    "aio": Servicer,
    "reader-writer": ReaderWriter,
    "blocking": Blocking,
    "intercepted": Intercepted,
}
