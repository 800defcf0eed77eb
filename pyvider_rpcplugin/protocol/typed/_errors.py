"""Exceptions that travel: what a method raises is raised where it was called."""

from __future__ import annotations

import traceback
import typing
from typing import TYPE_CHECKING, Any, final

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._events import event_logger

from ._messages import CANNOT_DECODE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvider_rpcplugin.rpc import ClientStream, ServerStream

__all__ = ["RemoteError"]

logger = event_logger(__name__)

ERROR_KEY = "pyvider-exception-bin"
"""The trailer that tells of an exception."""

# Trailers are for short things: peers bound them.
_LARGEST_DATA = 24_576
_LARGEST_TRACEBACK = 8_192
_LONGEST_MESSAGE = 1_000
_MOST_NAMES = 20


class RemoteError(GRPCError):
    """What a method raised on the other side, where that is no exception of the interface's.

    Attributes:
        exception: The name of the exception's class.
        traceback: The other side's traceback; empty where it does not tell.
    """

    __module__ = "pyvider_rpcplugin"  # A traceback says where it is imported from.

    def __init__(
        self, status: Status, message: str | None, exception: str = "", traceback: str = ""
    ) -> None:
        super().__init__(status, message)
        self.args: tuple[object, ...] = (status, message, exception, traceback)
        self.exception = exception
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}"


class _Raised(msgspec.Struct):
    """What is told of an exception.

    Attributes:
        names: The names of its class, and of those that it is derived from.
        is_complete: Whether its data is here: without, it is only one of that name.
    """

    names: list[str] = []
    is_complete: bool = True
    args: list[Any] = []
    fields: dict[str, msgspec.Raw] = {}
    traceback: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Raised).decode


# --- where it is raised ----------------------------------------------------------------------


async def send_error(
    stream: ServerStream[Any, Any],
    error: Exception,
    registered: tuple[type[Exception], ...],
) -> None:
    """End a call with an exception of its method."""
    lone: Any = error
    while isinstance(lone, ExceptionGroup) and len(lone.exceptions) == 1:
        lone = lone.exceptions[0]
    status = Status.UNKNOWN
    if isinstance(lone, RemoteError):
        status = lone.status  # Of a call that the method made; where it began is told, too.
    elif isinstance(lone, GRPCError):
        raise lone
    if isinstance(lone, registered):
        logger.debug("typed.method.raised method=%s error=%r", stream.head.path, lone)
    else:
        logger.error("rpc.handler.failed method=%s", stream.head.path, exc_info=error)
    message = f"{type(lone).__name__}: {_text_of(lone)}"[:_LONGEST_MESSAGE]
    data = _told(lone, with_traceback=stream.server.shows_tracebacks)
    metadata = {} if data is None else {ERROR_KEY: data}
    await stream.send_trailing_metadata(status=status, status_message=message, metadata=metadata)


def _text_of(thing: object) -> str:
    try:
        return str(thing)
    except Exception as second:  # noqa: BLE001 - boundary: a user's __str__
        return f"({type(second).__name__} in its __str__)"


def _told(error: Exception, *, with_traceback: bool) -> bytes | None:
    """What is told of an exception, as far as it can be sent."""
    names = {"names": _names(type(error))}
    types = _field_types(type(error))
    fields = {name: vars(error)[name] for name in types if name in vars(error)}
    data = {
        "args": [arg if _is_sendable(arg) else _text_of(arg) for arg in error.args],
        "fields": {name: value for name, value in fields.items() if _is_sendable(value)},
    }
    frames = {"traceback": _traceback_of(error)} if with_traceback else {}
    partial = {"is_complete": False}
    for form in ({**data, **frames}, data, {**partial, **frames}, partial):
        encoded = _encode(names | form)
        if len(encoded) <= _LARGEST_DATA:
            return encoded
    return None


def _names(kind: type[BaseException]) -> list[str]:
    found = [base.__name__ for base in kind.__mro__ if issubclass(base, Exception)]
    return found[:_MOST_NAMES]


def _is_sendable(value: Any) -> bool:
    try:
        _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True


def _traceback_of(error: Exception) -> str:
    # The first frame is the one that called the method: it says nothing.
    frames = error.__traceback__
    lines = traceback.format_exception(error.with_traceback(frames and frames.tb_next))
    text = "".join(lines).rstrip()
    if len(text) <= _LARGEST_TRACEBACK:
        return text
    half = _LARGEST_TRACEBACK // 2
    return f"{text[:half]}\n  [...]\n{text[-half:]}"


def _field_types(kind: type[BaseException]) -> dict[str, Any]:
    """The attributes that the classes of an exception annotate."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - boundary: annotations may hold anything
        return {}
    return {
        name: hint
        for name, hint in hints.items()
        if not name.startswith("_") and typing.get_origin(hint) is not typing.ClassVar
    }


# --- where it was called ---------------------------------------------------------------------


@final
class Registry:
    """The exceptions of an interface, by their names."""

    __slots__ = ("_classes",)

    def __init__(self, errors: Iterable[type[Exception]]) -> None:
        self._classes = {error.__name__: error for error in errors}

    def received(self, stream: ClientStream[Any, Any], error: GRPCError, where: str) -> Exception:
        """What to raise for the failure of a call."""
        metadata = stream.trailing_metadata
        data = None if metadata is None else metadata.get(ERROR_KEY)
        if not isinstance(data, bytes):
            return error
        try:
            told = _decode(data)
        except CANNOT_DECODE as exc:
            logger.debug("typed.exception.malformed error=%r", exc)
            return error
        raised = self._rebuild(told)
        if raised is None:
            name = told.names[0] if told.names else ""
            raised = RemoteError(error.status, error.message, name, _printable(told.traceback))
        if told.traceback:
            raised.add_note(f"raised by {where}:\n{_printable(told.traceback)}")
        return raised

    def _rebuild(self, told: _Raised) -> Exception | None:
        kind = next((self._classes[name] for name in told.names if name in self._classes), None)
        if kind is None or not told.is_complete:
            return None
        types = _field_types(kind)
        known = {name: value for name, value in told.fields.items() if name in types}
        try:
            fields = {
                name: msgspec.msgpack.decode(value, type=types[name])
                for name, value in known.items()
            }
            error = kind.__new__(kind, *told.args)
            error.args = tuple(told.args)
            for name, value in fields.items():
                object.__setattr__(error, name, value)
        except Exception as exc:  # noqa: BLE001 - boundary: another version of the class, perhaps
            logger.debug("typed.exception.unknown_form name=%s error=%r", kind.__name__, exc)
            return None
        return error


def _printable(text: str) -> str:
    """Text for a terminal: what it says may be anything."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
