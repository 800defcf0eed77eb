"""What a method's messages are: its arguments as one map, each result and item as itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError

from ._interface import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._interface import Method, Parameter

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode

# What msgspec says of a value that it does not take, or cannot write.
CANNOT_DECODE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
CANNOT_ENCODE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
# Where there may be nothing to decode, too.
CANNOT_READ = (*CANNOT_DECODE, TypeError)

_CONSTANTS = (bool, int, float, str, bytes, type(None))
_MOST_SHOWN = 500


def decoder(kind: Any, where: str) -> Callable[[bytes], Any]:
    """What reads one value.

    Raises:
        ProtocolError: msgspec cannot carry such values.
    """
    try:
        decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(kind).decode
    except Exception as error:
        raise cannot_carry(where, error) from error
    return decode


def cannot_carry(where: str, error: Exception) -> ProtocolError:
    """The error of a type that cannot be sent."""
    hint = None
    if "union" in str(error).lower():
        hint = "Of several classes in a union each needs a tag: class X(msgspec.Struct, tag=True)."
    return ProtocolError(f"{where} cannot be sent: {error}", hint, phase="serve")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like another one; None: none is."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for what went wrong

    found = get_close_matches(name, list(known), n=1)
    return found[0] if found else None


# --- the caller's side -----------------------------------------------------------------------


def call_struct(method: Method, parameters: Iterable[Parameter]) -> type[msgspec.Struct]:
    """What binds the arguments of a call, as Python does.

    Its types say nothing: who is called checks them. An argument that is not given is not sent, so
    that its default is the one of who is called.
    """
    fields: dict[bool, list[Any]] = {False: [], True: []}
    for one in parameters:
        field: Any = (one.name, Any)
        if one.default is not REQUIRED:
            field = (one.name, Any, msgspec.UNSET)
        fields[one.is_keyword].append(field)
    bases: Any = None
    if fields[True]:
        bases = (msgspec.defstruct("Keywords", fields[True], kw_only=True, gc=False),)
    return msgspec.defstruct(method.name, fields[False], bases=bases, gc=False)


def binding_error(method: Method, args: Any, keywords: Any, error: Exception) -> Exception:
    """What to raise for a call that could not be written."""
    try:
        method.signature.bind(None, *args, **keywords)
    except TypeError as exc:
        return TypeError(f"{method.where}: {exc}")
    bound = method.signature.bind(None, *args, **keywords).arguments
    for name, value in list(bound.items())[1:]:
        try:
            encode(value)
        except CANNOT_ENCODE as exc:
            return unsendable(f"the argument {name!r} of {method.where}", exc)
    return unsendable(f"the arguments of {method.where}", error)


def unsendable(what: str, error: Exception) -> GRPCError:
    """The error of a value that cannot be sent."""
    return GRPCError(Status.INVALID_ARGUMENT, f"{what} cannot be sent: {_shown(error)}")


def unexpected(what: str, error: Exception) -> GRPCError:
    """The error of an answer that is not what the interface says."""
    return GRPCError(Status.INTERNAL, f"{what} is not what was expected: {_shown(error)}")


def _shown(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)[:_MOST_SHOWN]
    if text.startswith("Encoding objects of type"):
        text += "; make that class a dataclass, or a msgspec.Struct"
    return text


# --- the service's side ----------------------------------------------------------------------


def arguments_struct(method: Method) -> type[msgspec.Struct]:
    """What the arguments of a call are, with the method's own defaults.

    All are keywords here, so that their order is the method's, whatever has a default.
    """
    fields: list[Any] = []
    for one in method.parameters:
        if one.reference is not None:
            kind: Any = int | None if one.is_optional else int
        else:
            kind = one.annotation
        if one.default is REQUIRED:
            fields.append((one.name, kind))
        elif one.reference is not None:
            fields.append((one.name, int | None | msgspec.UnsetType, msgspec.UNSET))
        else:
            fields.append((one.name, kind, _default(one.default)))
    return msgspec.defstruct(method.name, fields, kw_only=True, forbid_unknown_fields=True)


def _default(value: Any) -> Any:
    """A default, as one object, as Python has it."""
    if type(value) in _CONSTANTS:
        return value
    return msgspec.field(default_factory=lambda: value)


def refused(method: Method, data: bytes, error: Exception) -> GRPCError:
    """The error of arguments that the method does not take: it names the one it is about."""
    return GRPCError(Status.INVALID_ARGUMENT, f"{method.where}: {_complaint(method, data, error)}")


def _complaint(method: Method, data: bytes, error: Exception) -> str:
    try:
        given = msgspec.msgpack.decode(data, type=dict[str, msgspec.Raw])
    except CANNOT_DECODE:
        return f"the arguments are malformed: {_shown(error)}"
    known = {one.name: one for one in method.parameters}
    for name in given:
        if name not in known:
            near = nearest(name[:100], known)
            hint = "" if near is None else f"; is it {near!r}?"
            return f"there is no argument {name[:100]!r}{hint}"
    for one in known.values():
        if one.name not in given:
            if one.default is REQUIRED:
                return f"the argument {one.name!r} is missing"
        elif one.reference is None:
            try:
                msgspec.msgpack.decode(given[one.name], type=one.annotation)
            except CANNOT_DECODE as exc:
                return f"the argument {one.name!r} is not what it should be: {_shown(exc)}"
    return _shown(error)


class PackedMessages:
    """The messages of one method as MessagePack, as the service reads and writes them.

    Raises:
        ProtocolError: One of the types cannot be carried.
    """

    __slots__ = ("_item", "_method", "read_arguments")

    arguments_have_item = False
    """Whether the first message may hold an item of the streamed argument."""

    def __init__(self, method: Method) -> None:
        self._method = method
        try:
            struct = arguments_struct(method)
        except Exception as error:
            msg = f"an argument of {method.where}"
            raise cannot_carry(msg, error) from error
        self.read_arguments = decoder(struct, f"an argument of {method.where}")
        decoder(method.result, f"the result of {method.where}")  # Here, and not where it is called.
        self._item: Callable[[bytes], Any] | None = None
        if method.incoming is not None:
            self._item = decoder(method.item, incoming_item(method))

    def arguments(self, data: bytes | None) -> Any:
        """The arguments of a call."""
        if data is None:
            msg = f"{self._method.where}: the arguments are missing"
            raise GRPCError(Status.INVALID_ARGUMENT, msg)
        try:
            return self.read_arguments(data)
        except CANNOT_DECODE as error:
            raise refused(self._method, data, error) from None

    def items(self, data: bytes) -> tuple[Any, ...]:
        """The items of the streamed argument that one message holds."""
        assert self._item is not None  # noqa: S101 - there is a streamed argument
        try:
            return (self._item(data),)
        except CANNOT_DECODE as error:
            what = incoming_item(self._method)
            msg = f"{what} is not what it should be: {_shown(error)}"
            raise GRPCError(Status.INVALID_ARGUMENT, msg) from None

    def result(self, value: Any) -> bytes:
        """A result, or one of the items that are yielded, as it is sent."""
        try:
            return encode(value)
        except CANNOT_ENCODE as error:
            said = unsendable(f"what {self._method.where} returned", error)
            raise GRPCError(Status.INTERNAL, said.message) from error


def incoming_item(method: Method) -> str:
    """What errors call an item of the streamed argument."""
    name = "" if method.incoming is None else method.incoming.name
    return f"an item of the argument {name!r} of {method.where}"
