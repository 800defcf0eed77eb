"""From a class to the methods that it offers: what its annotations say."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

import msgspec

from pyvider_rpcplugin.exception import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED: Any = inspect.Parameter.empty

_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_AWAITABLES = (collections.abc.Awaitable, collections.abc.Coroutine)
_UNIONS = (typing.Union, types.UnionType)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# A plain function is a method of the service if its annotation says one of these.
_ASYNC_WORDS = ("Async", "Awaitable", "Coroutine")


class Stream(msgspec.Struct, frozen=True):
    """Items that come one after the other."""

    item: Any


class Function(msgspec.Struct, frozen=True):
    """Something to call back: what it takes, and what awaiting it gives."""

    parameters: tuple[Any, ...]
    result: Any


class Parameter(msgspec.Struct, frozen=True):
    """One argument.

    Attributes:
        name: What it is called.
        annotation: What it is.
        default: What it is if it is not given; REQUIRED: it has to be.
        is_keyword: Whether it can only be given by its name.
        reference: What it is, if it stays with the caller and is called or read from afar.
        is_optional: Whether such an argument may be None.
    """

    name: str
    annotation: Any
    default: Any
    is_keyword: bool
    reference: Stream | Function | None = None
    is_optional: bool = False


class Method(msgspec.Struct, frozen=True):
    """One method of an interface.

    Attributes:
        name: What it is called.
        where: What errors call it.
        doc: Its docstring.
        signature: What can be called, for whoever asks.
        parameters: Its arguments, without the one that is streamed.
        incoming: The one that is streamed to the service; None: none is.
        result: What it returns, or what each item that it yields is.
        streams: Whether it yields.
        is_awaited: Whether calling it gives something to await, be it an iterator.
        errors: The exceptions that are raised as themselves on the other side.
    """

    name: str
    where: str
    doc: str | None
    signature: inspect.Signature
    parameters: tuple[Parameter, ...]
    incoming: Parameter | None
    result: Any
    streams: bool
    is_awaited: bool
    errors: tuple[type[Exception], ...]

    @property
    def item(self) -> Any:
        """What each item of the argument is that is streamed to the service."""
        if self.incoming is None or not isinstance(self.incoming.reference, Stream):
            return None
        return self.incoming.reference.item


def checked_interface(interface: object) -> type:
    """The interface, if it is one.

    Raises:
        TypeError: It is no class.
    """
    if not isinstance(interface, type):
        msg = f"an interface is a class or a protocol, not {interface!r}"
        raise TypeError(msg)
    return interface


def methods_of(interface: type) -> dict[str, Method]:
    """The public async methods of a class or a protocol, by their names.

    Raises:
        ProtocolError: One of them cannot be called from elsewhere: an annotation is missing,
            unknown, or says what cannot be sent.
    """
    found: dict[str, Method] = {}
    seen: set[str] = set()
    for base in interface.__mro__:
        if base in NO_INTERFACES:
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(value, types.FunctionType):
                method = _method_of(interface, name, value)
                if method is not None:
                    found[name] = method
    return found


NO_INTERFACES = frozenset((object, typing.Generic, typing.Protocol))


def names_of(handler: type) -> list[str]:
    """The names that a handler's service has: its class's, and those of the interfaces it names."""
    names = [handler.__name__]
    for base in handler.__mro__[1:]:
        is_interface = getattr(base, "_is_protocol", False) or inspect.isabstract(base)
        if is_interface and base not in NO_INTERFACES and _offers(base):
            names.append(base.__name__)
    return names


def _offers(interface: type) -> bool:
    try:
        return bool(methods_of(interface))
    except ProtocolError:  # An interface's annotations matter only to who calls by it.
        return True


def _method_of(interface: type, name: str, function: types.FunctionType) -> Method | None:
    inner: Any = inspect.unwrap(function)
    is_generator = inspect.isasyncgenfunction(inner)
    is_coroutine = inspect.iscoroutinefunction(inner)
    if not is_generator and not is_coroutine:
        said = getattr(inner, "__annotations__", {}).get("return", "")
        if not any(word in str(said) for word in _ASYNC_WORDS):
            return None
    where = f"{interface.__name__}.{name}()"
    hints = hints_of(inner, where)
    if "return" not in hints:
        msg = f"{where} has no annotation for what it returns"
        raise ProtocolError(msg, hint="write -> None if that is nothing", phase="serve")
    returned = hints["return"]
    item = _streamed(returned)
    if is_generator and item is None:
        msg = f"{where} yields, but is not annotated as AsyncIterator[...]: {returned}"
        raise ProtocolError(msg, phase="serve")
    if item is None and not is_coroutine:
        if typing.get_origin(returned) not in _AWAITABLES:
            return None
        returned = typing.get_args(returned)[-1]
        item = _streamed(returned)
        is_coroutine = True
    parameters, incoming = _parameters(inspect.signature(inner), hints, where)
    return Method(
        name=name,
        where=where,
        doc=inspect.getdoc(getattr(interface, name)),
        signature=inspect.signature(inner),
        parameters=parameters,
        incoming=incoming,
        result=returned if item is None else item.item,
        streams=item is not None,
        is_awaited=is_coroutine,
        errors=errors_of(interface, name),
    )


def hints_of(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """A function's annotations, resolved.

    Raises:
        ProtocolError: They cannot be read.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        pass
    except Exception as error:
        msg = f"the annotations of {where} cannot be read: {error}"
        raise ProtocolError(msg, phase="serve") from error
    # Linters have names that only annotations use imported for type checkers alone. Those that
    # say what a method is are known.
    known = {name: getattr(collections.abc, name) for name in collections.abc.__all__}
    try:
        return typing.get_type_hints(function, localns=known, include_extras=True)
    except Exception as error:
        msg = f"the annotations of {where} cannot be read: {error}"
        hint = "They are needed at run time: import them outside of `if TYPE_CHECKING:`."
        raise ProtocolError(msg, hint, phase="serve") from error


def _parameters(
    signature: inspect.Signature, hints: dict[str, Any], where: str
) -> tuple[tuple[Parameter, ...], Parameter | None]:
    found: list[Parameter] = []
    incoming: Parameter | None = None
    for one in list(signature.parameters.values())[1:]:
        if one.kind in _VARIABLE:
            msg = f"{where} takes any number of arguments ({one}), which cannot be sent"
            raise ProtocolError(msg, hint="give it a list or a dict", phase="serve")
        if one.name not in hints:
            msg = f"{where} has no annotation for its argument {one.name!r}"
            raise ProtocolError(msg, phase="serve")
        annotation = hints[one.name]
        reference, is_optional = _reference(annotation, f"{where}, argument {one.name!r}")
        parameter = Parameter(
            one.name,
            annotation,
            one.default,
            one.kind is one.KEYWORD_ONLY,
            reference,
            is_optional,
        )
        plain = one.default is REQUIRED and not is_optional
        if incoming is None and isinstance(reference, Stream) and plain:
            incoming = parameter
        else:
            found.append(parameter)
    return tuple(found), incoming


def _streamed(annotation: Any) -> Stream | None:
    if annotation in _STREAMS:
        return Stream(Any)
    if typing.get_origin(annotation) in _STREAMS:
        return Stream(typing.get_args(annotation)[0])
    return None


def _reference(annotation: Any, where: str) -> tuple[Stream | Function | None, bool]:
    """What stays with the caller, and whether there may be none."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _reference(typing.get_args(annotation)[0], where)
    if origin in _UNIONS:
        others = [one for one in typing.get_args(annotation) if one is not type(None)]
        if len(others) == 1:
            return _reference(others[0], where)[0], True
        if any(_reference(one, where)[0] is not None for one in others):
            msg = f"{where}: a function or an iterator can be joined with None only: {annotation}"
            raise ProtocolError(msg, phase="serve")
        return None, False
    stream = _streamed(annotation)
    if stream is not None:
        return stream, False
    if origin is not collections.abc.Callable:
        return None, False
    taken, result = typing.get_args(annotation)
    returned = typing.get_args(result)
    if taken is Ellipsis or typing.get_origin(result) not in _AWAITABLES:
        msg = f"{where}: a function to call back is Callable[[...], Awaitable[...]], with its "
        msg += f"arguments: {annotation}"
        raise ProtocolError(msg, phase="serve")
    return Function(tuple(taken), returned[-1]), False


def errors_of(interface: type, name: str) -> tuple[type[Exception], ...]:
    """The exceptions that a method raises as themselves on the other side."""
    found: list[type[Exception]] = []
    for base in interface.__mro__:
        for owner in (base, base.__dict__.get(name)):
            said = getattr(owner, "__dict__", {}).get("__remote_errors__", ())
            found += [error for error in said if error not in found]
    by_name: dict[str, type[Exception]] = {}
    for error in found:
        other = by_name.setdefault(error.__name__, error)
        if other is not error:
            msg = f"{interface.__name__} registers two exceptions of the name {error.__name__}"
            raise ProtocolError(msg, phase="serve")
    return tuple(found)
