"""The caller's side: objects with the methods of an interface, each of which is a call."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError
from msgspec import UNSET
from msgspec.structs import asdict

from pyvider_rpcplugin._tasks import unwrapped

from ._errors import Registry
from ._formats import MSGPACK
from ._interface import methods_of
from ._messages import (
    CANNOT_DECODE,
    CANNOT_ENCODE,
    binding_error,
    call_struct,
    decoder,
    encode,
    incoming_item,
    unexpected,
    unsendable,
)
from ._results import Feeder, ResultStream
from ._service import CARDINALITIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping

    from msgspec import Struct

    from pyvider_rpcplugin.rpc import ClientStream

    from ._interface import Method

    AnyCall = ClientStream[Any, Any]

T = TypeVar("T")


class Target(Protocol):
    """What calls go through: a channel, or what stands in for one."""

    def request(self, *args: Any, **keywords: Any) -> AnyCall:
        """Prepare a call."""


class ProxyBase:
    """What the proxies of all interfaces are.

    A method's name stands for the method on the other side; everything else of a proxy begins with
    an underscore.
    """

    __slots__ = ("_rpc",)

    def __init__(self, rpc: Caller) -> None:
        self._rpc = rpc

    def __repr__(self) -> str:
        return f"<proxy of {self._rpc.service}>"


class Caller:
    """How the calls of one proxy are made; see `make_proxy`."""

    __slots__ = ("_target", "metadata", "service", "timeout")

    def __init__(
        self,
        target: Target,
        service: str,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        self._target = target
        self.service = service
        self.timeout = timeout
        self.metadata = metadata

    def request(self, method: str, kind: Cardinality) -> AnyCall:
        """Prepare a call."""
        return self._target.request(
            f"/{self.service}/{method}",
            kind,
            bytes,
            bytes,
            timeout=self.timeout,
            metadata=self.metadata,
            codec=MSGPACK,
        )


def make_proxy(
    interface: Callable[..., T],
    target: Target,
    *,
    service_name: str | None = None,
    timeout: float | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
) -> T:
    """Make an object with the methods of an interface.

    Args:
        interface: A class or a protocol.
        target: What the calls go through, such as a channel.
        service_name: The service's name; by default the interface's.
        timeout: Seconds that each call may take.
        metadata: What is sent along with each.

    Raises:
        ProtocolError: One of them cannot be called from elsewhere.
        TypeError: The interface is no class.
    """
    if not isinstance(interface, type):
        msg = f"a proxy is made from a class or a protocol, not from {interface!r}"
        raise TypeError(msg)
    name = interface.__name__ if service_name is None else service_name
    caller = Caller(target, name, timeout=timeout, metadata=metadata)
    proxy: Any = proxy_class(interface)(caller)
    return proxy  # type: ignore[no-any-return]  # it has the methods of T


@functools.lru_cache(maxsize=256)
def proxy_class(interface: type) -> type[ProxyBase]:
    """Make the class of an interface's proxies."""
    methods = methods_of(interface)
    members: dict[str, Any] = {"__slots__": (), "__doc__": interface.__doc__}
    for name, method in methods.items():
        members[name] = _function_for(method)
    return type(f"{interface.__name__}Proxy", (ProxyBase,), members)


class CalledMethod:
    """One method, as it is called."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.kind = CARDINALITIES[method.incoming is not None, method.streams]
        self.decode = decoder(method.result, f"the result of {method.where}")
        self.registry = Registry(method.errors)
        # With what is streamed, which is not sent with the others.
        parameters = list(method.signature.parameters.values())[1:]
        known = {one.name: one for one in (*method.parameters, method.incoming) if one is not None}
        self.bind: type[Struct] = call_struct(method, [known[one.name] for one in parameters])

    def message(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
        """Write the arguments of a call."""
        try:
            return encode(self.bind(*args, **keywords))
        except CANNOT_ENCODE as error:
            raise binding_error(self.method, args, keywords, error) from None

    def split(
        self, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[bytes, AsyncIterable[Any] | None]:
        """Write the arguments of a call, but for the one that is streamed."""
        incoming = self.method.incoming
        if incoming is None:
            return self.message(args, keywords), None
        try:
            bound = asdict(self.bind(*args, **keywords))
            items: Any = bound.pop(incoming.name)
            given = {name: value for name, value in bound.items() if value is not UNSET}
            return encode(given), items
        except CANNOT_ENCODE as error:
            raise binding_error(self.method, args, keywords, error) from None

    def result(self, data: bytes) -> Any:
        """Read a result."""
        try:
            return self.decode(data)
        except CANNOT_DECODE as error:
            msg = f"what {self.method.where} returned"
            raise unexpected(msg, error) from None

    def failure(self, call: AnyCall, error: GRPCError) -> Exception:
        """What to raise for the failure of a call."""
        return self.registry.received(call, error, self.method.where)

    def feeder(self, call: AnyCall, items: AsyncIterable[Any]) -> Feeder:
        """What sends the argument that is streamed."""
        return Feeder(call, items, self._write_item)

    def _write_item(self, item: Any) -> bytes:
        try:
            return encode(item)
        except CANNOT_ENCODE as error:
            raise unsendable(incoming_item(self.method), error) from None


def _function_for(method: Method) -> Callable[..., Any]:
    """Make the function that stands for a method in a proxy's class."""
    called = CalledMethod(method)
    if method.streams:
        function = _awaited_stream(called) if method.is_awaited else _stream(called)
    else:
        function = _unary(called) if method.incoming is None else _collected(called)
    function.__name__ = method.name
    function.__qualname__ = method.where.removesuffix("()")
    function.__doc__ = method.doc
    function.__signature__ = method.signature  # type: ignore[attr-defined]  # inspect reads it
    return function


def _unary(called: CalledMethod) -> Callable[..., Any]:
    name = called.method.name
    write, bind, read = encode, called.bind, called.decode

    async def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        try:
            message = write(bind(*args, **keywords))
        except CANNOT_ENCODE:
            message = called.message(args, keywords)  # It says what is wrong.
        stream = self._rpc.request(name, Cardinality.UNARY_UNARY)
        try:
            data = await stream.unary(message)
        except GRPCError as error:
            raise called.failure(stream, error) from None
        try:
            return read(data)
        except CANNOT_DECODE:
            return called.result(data)

    return call


def _collected(called: CalledMethod) -> Callable[..., Any]:
    """A method that takes a stream and has one result."""

    async def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        message, items = called.split(args, keywords)
        assert items is not None  # noqa: S101 - this kind of method has such an argument
        stream = self._rpc.request(called.method.name, called.kind)
        try:
            await stream.send_message(message)
            feeder = called.feeder(stream, items)
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(feeder.run)
                    data: Any = await stream.recv_message()
                    await stream.recv_status()
                    feeder.stop()
        except GRPCError as error:
            raise called.failure(stream, error) from None
        finally:
            stream.abandon()
        return called.result(data)

    return call


def _stream(called: CalledMethod) -> Callable[..., Any]:
    def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        message, items = called.split(args, keywords)
        stream = self._rpc.request(called.method.name, called.kind)
        feeder = None if items is None else called.feeder(stream, items)
        return ResultStream(stream, message, called.result, called.failure, feeder)

    return call


def _awaited_stream(called: CalledMethod) -> Callable[..., Any]:
    begin = _stream(called)

    async def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        return begin(self, *args, **keywords)

    return call
