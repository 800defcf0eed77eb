"""The messages of one method as Protocol Buffers, as the service reads and writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.message import DecodeError, Message
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError

from ._messages import CANNOT_ENCODE, arguments_struct, incoming_item, unsendable
from ._proto_file import ProtoFile
from ._proto_types import BUILTIN_TYPES, MISSING, builtins

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._interface import Method
    from ._proto_file import Shape

CANNOT_READ = (
    DecodeError,
    msgspec.MsgspecError,
    ValueError,
    OverflowError,
    TypeError,
    RecursionError,
)


def messages_of(name: str, methods: Mapping[str, Method]) -> dict[str, ProtoMessages]:
    """The messages of a service's methods, by their names.

    Raises:
        GRPCError: UNIMPLEMENTED, one of its types has no form.
    """
    try:
        file = ProtoFile(name, methods)
        classes = file.message_classes()
    except ProtocolError as error:
        msg = f"{name} is not served as Protocol Buffers: {error.message}"
        raise GRPCError(Status.UNIMPLEMENTED, msg) from error
    return {one: ProtoMessages(methods[one], shape, classes) for one, shape in file.shapes.items()}


class ProtoMessages:
    """See `PackedMessages`, which has the same methods."""

    __slots__ = ("_method", "_reply", "_request", "_shape", "_struct")

    arguments_have_item = True

    def __init__(self, method: Method, shape: Shape, classes: Mapping[str, Any]) -> None:
        self._method = method
        self._shape = shape
        self._struct = arguments_struct(method)
        self._request: type[Message] = classes[shape.request.name]
        self._reply: type[Message] = classes[shape.reply.name]

    def arguments(self, data: bytes | None) -> Any:
        """The arguments of a call; those of a stream without messages are all absent."""
        try:
            value = self._shape.request.read(self._request.FromString(data or b""))
            return msgspec.convert(value, self._struct, builtin_types=BUILTIN_TYPES)
        except CANNOT_READ as error:
            msg = f"{self._method.where}: {error}"
            raise GRPCError(Status.INVALID_ARGUMENT, msg) from None

    def items(self, data: bytes) -> tuple[Any, ...]:
        """The items of the streamed argument that one message holds: one or none."""
        field = self._shape.item
        assert field is not None  # noqa: S101 - there is a streamed argument
        try:
            value = field.read(self._request.FromString(data))
            if value is MISSING:
                return ()
            return (msgspec.convert(value, self._method.item, builtin_types=BUILTIN_TYPES),)
        except CANNOT_READ as error:
            msg = f"{incoming_item(self._method)}: {error}"
            raise GRPCError(Status.INVALID_ARGUMENT, msg) from None

    def result(self, value: Any) -> bytes:
        """A result, or one of the items that are yielded, as it is sent."""
        shape = self._shape
        reply = self._reply()
        try:
            if shape.result is not None:
                plain = builtins(value)
                if plain is not None:
                    shape.result.write(reply, plain)
            elif not shape.is_nothing:
                shape.reply.fill(reply, builtins(value))
            data: bytes = reply.SerializeToString()
        except CANNOT_ENCODE as error:
            said = unsendable(f"what {self._method.where} returned", error)
            raise GRPCError(Status.INTERNAL, said.message) from error
        return data
