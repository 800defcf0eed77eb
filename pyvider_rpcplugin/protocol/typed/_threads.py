"""Classes whose methods are plain functions: served in threads, and called by plain proxies."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio import from_thread, to_thread

from pyvider_rpcplugin.exception import ProtocolError

from ._interface import NO_INTERFACES, errors_of, hints_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
)
_END: Any = object()


def in_threads(handler: object) -> Any:
    """Make a handler out of an object whose methods are plain functions: each call has a thread.

    All public methods that are annotated are served. `Iterator[T]` in an annotation, of an argument
    or of what is returned, is a stream. A thread cannot be interrupted: where a call is cancelled or
    late, its method runs on, and what it returns is dropped; a generator is closed.

    Args:
        handler: The object. PLUGIN_MAX_WORKERS says how many of its calls may run at a time.

    Raises:
        ProtocolError: It has no such method.
    """
    kind: Any = type(handler)
    return async_form(kind)(handler)


@functools.lru_cache(maxsize=256)
def async_form(interface: type) -> type[InThreads]:
    """The class with async methods that stands for one with plain functions."""
    members: dict[str, Any] = {"__doc__": interface.__doc__, "__module__": interface.__module__}
    for base in interface.__mro__:
        if base in NO_INTERFACES:
            continue
        for name, value in vars(base).items():
            if not name.startswith("_") and name not in members and _is_plain(value):
                members[name] = _twin(interface, name, value)
    if len(members) == 2:
        msg = (
            f"nothing to serve: {interface.__name__} has no public methods that are plain functions"
        )
        raise ProtocolError(msg, phase="serve")
    return type(interface.__name__, (InThreads,), members)


def _is_plain(value: object) -> bool:
    return isinstance(value, types.FunctionType) and not (
        inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)
    )


def _twin(interface: type, name: str, function: types.FunctionType) -> Callable[..., Any]:
    """The async function that has a plain one called in a thread."""
    where = f"{interface.__name__}.{name}()"
    hints = hints_of(function, where)
    streams = _is_iterator(hints.get("return"))
    twin: Any = _stream(function) if streams else _call(function)
    twin.__name__ = name
    twin.__doc__ = inspect.getdoc(function)
    annotations = {one: _async_annotation(hint) for one, hint in hints.items()}
    twin.__annotations__ = annotations
    signature = inspect.signature(function)
    twin.__signature__ = signature.replace(
        parameters=[
            one.replace(annotation=annotations.get(one.name, one.empty))
            for one in signature.parameters.values()
        ],
        return_annotation=annotations.get("return", signature.empty),
    )
    twin.__remote_errors__ = errors_of(interface, name)
    return twin  # type: ignore[no-any-return]


def _is_iterator(annotation: Any) -> bool:
    return annotation in _ITERATORS or typing.get_origin(annotation) in _ITERATORS


def _async_annotation(annotation: Any) -> Any:
    if not _is_iterator(annotation):
        return annotation
    arguments = typing.get_args(annotation)
    return collections.abc.AsyncIterator[arguments[0] if arguments else Any]  # type: ignore[misc]


class InThreads:
    """What `in_threads` makes."""

    def __init__(self, handler: object) -> None:
        self._handler = handler
        self._threads: Callable[[], anyio.CapacityLimiter] = (
            to_thread.current_default_thread_limiter
        )

    def _use_threads(self, threads: Callable[[], anyio.CapacityLimiter]) -> None:
        """Count the threads with those of a server."""
        self._threads = threads

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await to_thread.run_sync(
            function, *args, limiter=self._threads(), abandon_on_cancel=True
        )

    async def _begin(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        values = [_plain(value) for value in args]
        named = {name: _plain(value) for name, value in keywords.items()}
        return await self._run(functools.partial(function, self._handler, *values, **named))


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(self: InThreads, /, *args: Any, **keywords: Any) -> Any:
        return await self._begin(function, args, keywords)

    return call


def _stream(function: Callable[..., Any]) -> Callable[..., Any]:
    async def stream(self: InThreads, /, *args: Any, **keywords: Any) -> AsyncIterator[Any]:
        iterator = iter(await self._begin(function, args, keywords))
        try:
            while (item := await self._run(next, iterator, _END)) is not _END:
                yield item
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                with anyio.CancelScope(shield=True), suppress(ValueError):  # It is running still.
                    await self._run(close)

    return stream


def _plain(value: Any) -> Any:
    return _Items(value) if hasattr(value, "__anext__") else value


class _Items:
    """What is streamed to a method, as an iterator for its thread."""

    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = from_thread.run(self._next)
        if item is _END:
            raise StopIteration
        return item

    async def _next(self) -> Any:
        return await anext(self._items, _END)
