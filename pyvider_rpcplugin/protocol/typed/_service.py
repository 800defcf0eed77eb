"""The service's side: methods of an object as the handlers of calls."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, final

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from msgspec import UNSET
from msgspec.structs import astuple

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc._codecs import CodecHandler

from ._formats import DESCRIBE, FORMATS, MSGPACK
from ._interface import methods_of, names_of
from ._iterators import close_iterator
from ._messages import CANNOT_ENCODE, CANNOT_READ, PackedMessages, encode
from ._methods import CARDINALITIES, loan_kinds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from grpclib.const import Handler

    from pyvider_rpcplugin.rpc import ServerStream

    from ._interface import Method
    from ._peer import Peer
    from ._proto_messages import ProtoMessages

    AnyCall = ServerStream[Any, Any]
    AnyMessages = PackedMessages | ProtoMessages

__all__ = ["TypedService"]


class TypedService:
    """What serves the public async methods of an object; `add_service` takes it.

    Args:
        handler: The object. What its methods take and return, their annotations say.
        service_name: The service's name. By default its class's; and the names of the protocols
            and abstract classes that this is derived from, too.
        peer: Who calls it, and can be called back; by default the one of the server.

    Raises:
        ProtocolError: There is no such method, or one of them cannot be called from elsewhere.
    """

    def __init__(
        self, handler: object, service_name: str | None = None, peer: Peer | None = None
    ) -> None:
        kind = type(handler)
        self.names: list[str] = names_of(kind) if service_name is None else [service_name]
        self.doc: str | None = inspect.getdoc(kind)
        self.methods: dict[str, Method] = methods_of(kind)
        if not self.methods:
            msg = f"nothing to serve for {self.names[0]!r}: the handler ({kind.__name__}) has no "
            msg += "services"
            hint = "give its class public async methods, or derive it from a generated ...Base\n"
            hint += "class of grpclib, or give plugin_protocol() a servicer_add_fn"
            raise ProtocolError(msg, hint, phase="serve")
        self._proto: dict[str, ProtoMessages] | None = None
        self._handlers: dict[str, TypedHandler] = {}
        for name, method in self.methods.items():
            served = _ServedMethod(self, method, getattr(handler, name), peer)
            cardinality = CARDINALITIES[method.incoming is not None, method.streams]
            run = served.stream if method.streams else served.handler()
            typed = TypedHandler.make(run, cardinality, FORMATS)
            typed.service = self
            self._handlers[name] = typed

    def proto_messages(self, method: Method) -> ProtoMessages:
        """The messages of a method for who speaks Protocol Buffers: made when first asked for."""
        if self._proto is None:
            from ._proto_messages import messages_of  # noqa: PLC0415 - for others than Python

            self._proto = messages_of(self.names[0], self.methods)
        found = self._proto.get(method.name)
        if found is None:
            msg = f"{method.where} calls back, which there is no form of Protocol Buffers for"
            raise GRPCError(Status.UNIMPLEMENTED, msg)
        return found

    def descriptor_pools(self) -> list[Any]:
        """What describes it to who asks by reflection, under each of its names."""
        from ._proto_file import ProtoFile  # noqa: PLC0415 - for others than Python

        try:
            return [ProtoFile(name, self.methods, self.doc).pool() for name in self.names]
        except ProtocolError:
            return []  # It is served in one format only.

    def __mapping__(self) -> dict[str, Handler]:
        """Return the handlers by their methods' full paths."""
        methods: dict[str, Handler] = {
            f"/{service}/{name}": handler
            for service in self.names
            for name, handler in self._handlers.items()
        }
        methods[DESCRIBE] = _DESCRIBE_HANDLER  # The same for all services of a server.
        return methods


class TypedHandler(CodecHandler):
    """A method's handler, which leads to its service."""

    service: TypedService


async def _describe(call: AnyCall) -> None:
    from ._describe import describe  # noqa: PLC0415 - hardly anybody asks

    await describe(call)


_DESCRIBE_HANDLER = CodecHandler.make(_describe, Cardinality.UNARY_UNARY, FORMATS)


@final
class _ServedMethod:
    """One method of an object."""

    def __init__(
        self,
        service: TypedService,
        method: Method,
        function: Callable[..., Any],
        peer: Peer | None,
    ) -> None:
        self._service = service
        self._method = method
        self._peer = peer
        self._function = function
        self._packed = PackedMessages(method)
        self._names = tuple(one.name for one in method.parameters)
        parameters = list(method.signature.parameters.values())[1:]
        self._keywords = tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)
        self._positional = tuple(one.name for one in parameters if one.name not in self._keywords)
        # Then the values of the message are the arguments as they are.
        self._lent = loan_kinds(method)
        self._is_plain = self._positional == self._names and not self._lent

    def handler(self) -> Callable[[AnyCall], Awaitable[None]]:
        """What handles a call that has one result; for plain arguments, as fast as it goes."""
        if not self._is_plain:
            return self._unary
        function, packed = self._function, self._packed
        read, write = packed.read_arguments, encode

        async def unary(call: AnyCall) -> None:
            data: Any = await call.recv_message()
            if call.codec is not MSGPACK:
                await self._answer(call, data)
                return
            try:
                arguments = astuple(read(data))
            except CANNOT_READ:
                arguments = astuple(packed.arguments(data))  # It says what is wrong.
            try:
                result = await function(*arguments)
            except Exception as error:  # noqa: BLE001 - boundary: what a method raises is told
                await self._failed(call, error)
                return
            try:
                reply = write(result)
            except CANNOT_ENCODE:
                reply = packed.result(result)  # As above.
            await call.send_message(reply)

        return unary

    async def _unary(self, call: AnyCall) -> None:
        await self._answer(call, await call.recv_message())

    async def _answer(self, call: AnyCall, data: bytes | None) -> None:
        messages = self._messages(call)
        arguments = messages.arguments(data)
        try:
            result = await self._call(call, messages, data, arguments)
        except Exception as error:  # noqa: BLE001 - boundary: as above
            await self._failed(call, error)
            return
        await call.send_message(messages.result(result))

    async def stream(self, call: AnyCall) -> None:
        """Handle a call that has several."""
        data = await call.recv_message()
        messages = self._messages(call)
        arguments = messages.arguments(data)
        items: Any = None
        try:
            try:
                items = self._call(call, messages, data, arguments)
                if self._method.is_awaited:
                    items = await items
                async for item in items:
                    await call.send_message(messages.result(item))
            finally:
                await close_iterator(items)
        except Exception as error:  # noqa: BLE001 - boundary: as above
            await self._failed(call, error)

    def _messages(self, call: AnyCall) -> AnyMessages:
        if call.codec is MSGPACK:
            return self._packed
        return self._service.proto_messages(self._method)

    async def _failed(self, call: AnyCall, error: Exception) -> None:
        from ._errors import send_error  # noqa: PLC0415 - not before it is needed

        await send_error(call, error, self._method.errors)

    def _call(
        self, call: AnyCall, messages: AnyMessages, data: bytes | None, arguments: Any
    ) -> Any:
        values = dict(zip(self._names, astuple(arguments), strict=True))
        for name, kind in self._lent.items():
            if values[name] is UNSET:
                values[name] = self._method.signature.parameters[name].default
            elif values[name] is not None:
                from ._loans import borrowed  # noqa: PLC0415 - few methods take any

                values[name] = borrowed(self._caller(call), kind, values[name])
        incoming = self._method.incoming
        if incoming is not None:
            first = data if messages.arguments_have_item else None
            values[incoming.name] = Incoming(call, messages, first)
        positional = [values[name] for name in self._positional]
        return self._function(*positional, **{name: values[name] for name in self._keywords})

    def _caller(self, call: AnyCall) -> Peer:
        peer = self._peer
        if peer is None and call.server.peer is not None:
            peer = call.server.peer()
        if peer is None:
            from ._loans import no_peer  # noqa: PLC0415 - as above

            raise GRPCError(Status.FAILED_PRECONDITION, no_peer(self._method.where).message)
        return peer


@final
class Incoming:
    """The argument of a method that is streamed to it: an async iterator."""

    __slots__ = ("_call", "_first", "_items", "_messages")

    def __init__(self, call: AnyCall, messages: AnyMessages, first: bytes | None) -> None:
        self._call = call
        self._messages = messages
        self._first = first
        self._items: tuple[Any, ...] = ()

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            data, self._first = self._first, None
            if data is None:
                data = await self._call.recv_message()
            if data is None:
                raise StopAsyncIteration
            self._items = self._messages.items(data)
        item, *rest = self._items
        self._items = tuple(rest)
        return item
