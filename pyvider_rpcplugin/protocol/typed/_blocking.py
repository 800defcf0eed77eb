"""Proxies whose methods are plain functions and iterators, for programs without an event loop."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._interrupts import protected
from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc._blocking_calls import Sender, send_all

from ._interface import checked_interface, methods_of
from ._proxy import CalledMethod, Caller, ProxyBase, function_for, named_after
from ._threads import async_form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from pyvider_rpcplugin.rpc import ClientStream
    from pyvider_rpcplugin.rpc._blocking_calls import Driver

    from ._interface import Method
    from ._loans import Loans
    from ._proxy import Arguments

    AnyCall = ClientStream[Any, Any]


class _Target:
    """What the calls of a proxy go through: whatever its client has at the moment."""

    def __init__(self, current: Callable[[], Driver]) -> None:
        self.current = current

    def request(self, *args: Any, **keywords: Any) -> AnyCall:
        """Prepare a call."""
        return self.current().request(*args, **keywords)


class BlockingCaller(Caller):
    """How the calls of one proxy are made."""

    __slots__ = ("current",)

    def __init__(self, current: Callable[[], Driver], *args: Any, **keywords: Any) -> None:
        target: Any = _Target(current)
        super().__init__(target, *args, **keywords)
        self.current = current

    async def lender(self, where: str) -> Loans:
        """Refuse: nobody would answer the plugin.

        Raises:
            ProtocolError: Always.
        """
        msg = f"{where} takes a function or an iterator to call back, which needs an event loop"
        raise ProtocolError(msg, hint="use plugin_client() for it", phase="call")


def make_blocking_proxy(
    interface: Callable[..., Any],
    current: Callable[[], Driver],
    *,
    service_name: str | None = None,
    timeout: float | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
) -> Any:
    """Make an object with the methods of an interface, as plain functions.

    Arguments and errors are those of `make_proxy`; `current` gives what calls go through.
    """
    kind = checked_interface(interface)
    if not methods_of(kind):
        kind = async_form(kind)
    caller = BlockingCaller(current, kind, service_name, timeout=timeout, metadata=metadata)
    return _proxy_class(kind)(caller)


@functools.lru_cache(maxsize=256)
def _proxy_class(interface: type) -> type[ProxyBase]:
    members: dict[str, Any] = {"__slots__": (), "__doc__": interface.__doc__}
    for name, method in methods_of(interface).items():
        members[name] = _function_for(method)
    return type(f"{interface.__name__}Proxy", (ProxyBase,), members)


def _function_for(method: Method) -> Callable[..., Any]:
    if method.streams:
        function = _stream(CalledMethod(method))
    elif method.incoming is not None:
        function = _collected(CalledMethod(method))
    else:
        return _driven(function_for(method), method)
    return named_after(function, method)


def _driven(function: Callable[..., Any], method: Method) -> Callable[..., Any]:
    """A method whose coroutine waits for nothing but its call."""

    def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        caller: Any = self._rpc
        return caller.current().drive(function(self, *args, **keywords))

    return named_after(call, method)


def _collected(called: CalledMethod) -> Callable[..., Any]:
    """A method that takes a stream and has one result."""

    def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        caller: Any = self._rpc
        arguments = called.arguments(args, keywords)
        driver: Driver = caller.current()
        stream = _begin(called, caller, driver, arguments)
        try:
            send_all(driver, stream, map(called.write_item, _iterable(arguments.items)))
            data = driver.drive(_only_result(stream))
        except GRPCError as error:
            raise driver.drive(called.explained(caller, stream, error)) or error from None
        finally:
            driver.drive(_abandon(stream))
        return called.result(data)

    return call


def _stream(called: CalledMethod) -> Callable[..., Any]:
    def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        caller: Any = self._rpc
        return BlockingResults(called, caller, called.arguments(args, keywords))

    return call


def _begin(called: CalledMethod, caller: Caller, driver: Driver, arguments: Arguments) -> AnyCall:
    """Begin a call that takes a stream, and could not be made again: under the right name."""
    driver.drive(caller.make_sure())
    message = driver.drive(arguments.message(caller))
    stream = caller.request(called.method.name, called.kind)
    driver.drive(stream.send_message(message))
    return stream


def _iterable(items: Any) -> Iterable[Any]:
    if hasattr(items, "__aiter__"):
        msg = (
            "an async iterator cannot be sent by a program without an event loop: give a plain one"
        )
        raise TypeError(msg)
    found: Iterable[Any] = items
    return found


async def _only_result(stream: AnyCall) -> Any:
    data = await stream.recv_message()
    await stream.recv_status()
    return data


async def _next_result(stream: AnyCall) -> Any:
    data = await stream.recv_message()
    if data is None:
        await stream.recv_status()
    return data


async def _abandon(stream: AnyCall) -> None:
    stream.abandon()


class BlockingResults:
    """The results of a method that yields: an iterator, and a block.

    Whoever leaves before the last one, by leaving the block, by `close()`, or by dropping the
    object, ends the call: the method is cancelled on the other side.
    """

    __slots__ = (
        "_arguments",
        "_called",
        "_caller",
        "_driver",
        "_items",
        "_over",
        "_some",
        "_stream",
    )

    def __init__(self, called: CalledMethod, caller: Any, arguments: Arguments) -> None:
        self._over = True
        self._called = called
        self._caller = caller
        self._arguments = arguments
        items = arguments.items
        self._items = None if items is None else _iterable(items)
        self._driver: Driver = caller.current()
        self._stream: AnyCall | None = None
        self._some = False
        self._over = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next result."""
        while not self._over:
            stream = self._stream or self._begin()
            try:
                data = self._driver.drive(_next_result(stream))
            except GRPCError as error:
                self._explain(stream, error)
                continue
            except BaseException:
                self.close()
                raise
            if data is None:
                self.close()
                break
            self._some = True
            try:
                return self._called.result(data)
            except BaseException:
                self.close()
                raise
        raise StopIteration

    def _begin(self) -> AnyCall:
        called, caller, driver = self._called, self._caller, self._driver
        if self._items is None:
            message = driver.drive(self._arguments.message(caller))
            stream = caller.request(called.method.name, called.kind)
            self._stream = stream
            driver.drive(stream.send_message(message, end=True))
            return stream  # type: ignore[no-any-return]
        self._stream = stream = _begin(called, caller, driver, self._arguments)
        sender = Sender(driver, stream)
        sender.start(map(called.write_item, self._items), called.method.name)
        return stream

    def _explain(self, stream: AnyCall, error: GRPCError) -> None:
        """Raise what a failure means; return if the call can be made again."""
        self.close()
        explained = self._called.explained(self._caller, stream, error)
        failure = self._driver.drive(explained)
        if failure is not None or self._some or self._items is not None:
            raise failure or error from None
        self._over = False
        self._stream = None

    def close(self) -> None:
        """End the call, if it has not ended."""
        if not self._over:
            self._over = True
            if self._stream is not None:
                self._driver.drive(_abandon(self._stream))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @protected  # An interrupt would be lost in here.
    def __del__(self) -> None:
        if not self._over and self._stream is not None:
            self._driver.forget(self._stream)
