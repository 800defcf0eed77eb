"""The caller's side: objects with the methods of an interface, each of which is a call."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from msgspec import UNSET
from msgspec.structs import asdict

from pyvider_rpcplugin._tasks import unwrapped

from ._errors import Registry
from ._formats import MSGPACK
from ._interface import checked_interface, methods_of
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
from ._methods import CARDINALITIES, loan_kinds
from ._peer import Peer
from ._results import Feeder, ResultStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping, Sequence

    from msgspec import Struct

    from pyvider_rpcplugin.rpc import Channel, ClientStream

    from ._check import Service
    from ._interface import Method
    from ._loans import Loan, LoanKind, Loans

    AnyCall = ClientStream[Any, Any]

T = TypeVar("T")


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

    __slots__ = ("_interface", "_is_sure", "_target", "metadata", "peer", "service", "timeout")

    def __init__(
        self,
        target: Channel | Peer,
        interface: type,
        service: str | None,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        self._target = target
        # Who has to be waited for.
        self.peer = target if isinstance(target, Peer) and target.waits else None
        self._interface = interface
        self.service = interface.__name__ if service is None else service
        # An interface need not have the name of the class that it stands for.
        self._is_sure = service is not None
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

    async def lender(self, where: str) -> Loans:
        """What is called back by the other side.

        Raises:
            ProtocolError: It cannot call back.
        """
        if isinstance(self._target, Peer):
            return await self._target.lender()
        from ._loans import no_peer  # noqa: PLC0415 - hardly ever needed

        raise no_peer(where)

    async def make_sure(self) -> None:
        """Find out the service's name, before a call that could not be made again."""
        if not self._is_sure:
            from ._check import describe_services  # noqa: PLC0415 - hardly ever needed

            with contextlib.suppress(GRPCError):
                self._find(await describe_services(self._target))

    async def explain(self, method: Method, error: GRPCError) -> GRPCError | None:
        """Find out why there is no such method.

        Returns:
            What to raise. None: the service has another name, which is now known; call again.
        """
        if error.status is not Status.UNIMPLEMENTED:
            return error
        from ._check import (  # noqa: PLC0415 - only where something is wrong
            describe_services,
            missing_method,
            missing_service,
        )

        try:
            served = await describe_services(self._target)
        except GRPCError:
            return error
        if not self._is_sure and self._find(served):
            return None
        service = served.get(self.service)
        if service is None:
            said = missing_service(self.service, served)
        elif method.name in service.methods:
            return error  # It is the method itself that says so.
        else:
            said = missing_method(method.name, service)
        return GRPCError(error.status, f"{method.where}: {said}")

    def _find(self, served: dict[str, Service]) -> bool:
        """Take the name that the service has; return whether it is another one than before."""
        self._is_sure = True
        if self.service in served:
            return False
        from ._check import find_service  # noqa: PLC0415 - as above

        found = find_service(self._interface, served)
        if found is None:
            return False
        self.service = found
        return True


def make_proxy(
    interface: Callable[..., T],
    target: Channel | Peer,
    *,
    service_name: str | None = None,
    timeout: float | None = None,
    metadata: Mapping[str, str | bytes] | None = None,
) -> T:
    """Make an object with the methods of an interface.

    Args:
        interface: A class or a protocol.
        target: What the calls go through.
        service_name: The service's name; by default the interface's.
        timeout: Seconds that each call may take.
        metadata: What is sent along with each.

    Raises:
        ProtocolError: One of them cannot be called from elsewhere.
        TypeError: The interface is no class.
    """
    kind = checked_interface(interface)
    caller = Caller(target, kind, service_name, timeout=timeout, metadata=metadata)
    proxy: Any = proxy_class(kind)(caller)
    return proxy  # type: ignore[no-any-return]  # it has the methods of T


@functools.lru_cache(maxsize=256)
def proxy_class(interface: type) -> type[ProxyBase]:
    """Make the class of an interface's proxies."""
    methods = methods_of(interface)
    members: dict[str, Any] = {"__slots__": (), "__doc__": interface.__doc__}
    for name, method in methods.items():
        members[name] = function_for(method)
    return type(f"{interface.__name__}Proxy", (ProxyBase,), members)


class CalledMethod:
    """One method, as it is called."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.kind = CARDINALITIES[method.incoming is not None, method.streams]
        self.decode = decoder(method.result, f"the result of {method.where}")
        self._registry = Registry(method.errors)
        # With what is streamed, which is not sent with the others.
        parameters = list(method.signature.parameters.values())[1:]
        known = {one.name: one for one in (*method.parameters, method.incoming) if one is not None}
        self.bind: type[Struct] = call_struct(method, [known[one.name] for one in parameters])
        self._lent = loan_kinds(method)
        self.is_plain: bool = method.incoming is None and not self._lent

    def message(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
        """Write the arguments of a call, if they are all plain."""
        try:
            return encode(self.bind(*args, **keywords))
        except CANNOT_ENCODE as error:
            raise binding_error(self.method, args, keywords, error) from None

    def arguments(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
        """Take the arguments of a call."""
        if self.is_plain:
            return Arguments(self.message(args, keywords))
        incoming = self.method.incoming
        try:
            bound = asdict(self.bind(*args, **keywords))
        except TypeError as error:
            raise binding_error(self.method, args, keywords, error) from None
        items = None if incoming is None else bound.pop(incoming.name)
        things: list[tuple[LoanKind, Any]] = []
        for kind in self._lent.values():
            thing = bound.pop(kind.name)
            if thing is None and kind.is_optional:
                bound[kind.name] = None
            elif thing is not UNSET:
                kind.check(thing, self.method.where)
                things.append((kind, thing))
        given = {name: value for name, value in bound.items() if value is not UNSET}
        try:
            return Arguments(encode(given), items, given, things)
        except CANNOT_ENCODE as error:
            raise self._unsendable(given, error) from None

    def _unsendable(self, given: dict[str, Any], error: Exception) -> GRPCError:
        for name, value in given.items():
            try:
                encode(value)
            except CANNOT_ENCODE as exc:
                return unsendable(f"the argument {name!r} of {self.method.where}", exc)
        return unsendable(f"the arguments of {self.method.where}", error)

    def result(self, data: bytes) -> Any:
        """Read a result."""
        try:
            return self.decode(data)
        except CANNOT_DECODE as error:
            msg = f"what {self.method.where} returned"
            raise unexpected(msg, error) from None

    async def explained(self, caller: Caller, call: AnyCall, error: GRPCError) -> Exception | None:
        """What to raise for the failure of a call; None: it can be made again, now."""
        failure = self._registry.received(call, error, self.method.where)
        return await caller.explain(self.method, error) if failure is error else failure

    def feeder(self, call: AnyCall, items: AsyncIterable[Any]) -> Feeder:
        """What sends the argument that is streamed."""
        return Feeder(call, items, self.write_item)

    def write_item(self, item: Any) -> bytes:
        """Write one of what is streamed."""
        try:
            return encode(item)
        except CANNOT_ENCODE as error:
            raise unsendable(incoming_item(self.method), error) from None


class Arguments:
    """The arguments of one call."""

    __slots__ = ("_given", "_loans", "_message", "_things", "items")

    def __init__(
        self,
        message: bytes,
        items: AsyncIterable[Any] | None = None,
        given: dict[str, Any] | None = None,
        things: Sequence[tuple[LoanKind, Any]] = (),
    ) -> None:
        self._message = message
        self.items = items
        self._given = given
        self._things = things
        self._loans: list[Loan] = []

    async def message(self, caller: Caller) -> bytes:
        """Write them; what the other side will call is lent to it."""
        if not self._things:
            return self._message
        if not self._loans:
            lender = await caller.lender(self._things[0][0].where)
            self._loans = [lender.lend(kind, thing) for kind, thing in self._things]
        numbers = {loan.kind.name: loan.number for loan in self._loans}
        return encode({**(self._given or {}), **numbers})

    def end(self) -> None:
        """The call is over."""
        while self._loans:
            self._loans.pop().end()


def function_for(method: Method) -> Callable[..., Any]:
    """Make the function that stands for a method in a proxy's class."""
    called = CalledMethod(method)
    if method.streams:
        function = _awaited_stream(called) if method.is_awaited else _stream(called)
    else:
        function = _plain(called) if called.is_plain else _unary(called)
    return named_after(function, method)


def named_after(function: Callable[..., Any], method: Method) -> Callable[..., Any]:
    """Let a function look like the method that it stands for."""
    function.__name__ = method.name
    function.__qualname__ = method.where.removesuffix("()")
    function.__doc__ = method.doc
    function.__signature__ = method.signature  # type: ignore[attr-defined]  # inspect reads it
    return function


def _plain(called: CalledMethod) -> Callable[..., Any]:
    """A method that takes plain arguments and has one result: most are, and it is made fast."""
    name = called.method.name
    write, bind, read = encode, called.bind, called.decode

    async def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        try:
            message = write(bind(*args, **keywords))
        except CANNOT_ENCODE:
            message = called.message(args, keywords)  # It says what is wrong.
        rpc = self._rpc
        if rpc.peer is not None:
            await rpc.peer.ready()
        stream = rpc.request(name, Cardinality.UNARY_UNARY)
        try:
            data = await stream.unary(message)
        except GRPCError as error:
            failure = await called.explained(rpc, stream, error)
            if failure is not None:
                raise failure from None
            data = await rpc.request(name, Cardinality.UNARY_UNARY).unary(message)
        try:
            return read(data)
        except CANNOT_DECODE:
            return called.result(data)

    return call


def _unary(called: CalledMethod) -> Callable[..., Any]:
    """A method that takes a stream, or what is called back, and has one result."""

    async def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        arguments = called.arguments(args, keywords)
        rpc = self._rpc
        try:
            if rpc.peer is not None:
                await rpc.peer.ready()
            # What was taken from an iterator, or called back, cannot be taken back.
            await rpc.make_sure()
            message = await arguments.message(rpc)
            stream = rpc.request(called.method.name, called.kind)
            try:
                if arguments.items is None:
                    data = await stream.unary(message)
                else:
                    data = await _fed(stream, message, called.feeder(stream, arguments.items))
            except GRPCError as error:
                raise await called.explained(rpc, stream, error) or error from None
        finally:
            arguments.end()
        return called.result(data)

    return call


async def _fed(stream: AnyCall, message: bytes, feeder: Feeder) -> Any:
    """Make a call that takes a stream and has one result."""
    try:
        await stream.send_message(message)
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feeder.run)
                data = await stream.recv_message()
                await stream.recv_status()
                feeder.stop()
    except BaseException as error:
        stream.abandon(error)
        raise
    stream.abandon()
    return data


def _stream(called: CalledMethod) -> Callable[..., Any]:
    def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        return ResultStream(_Opening(called, self._rpc, called.arguments(args, keywords)))

    return call


def _awaited_stream(called: CalledMethod) -> Callable[..., Any]:
    begin = _stream(called)

    async def call(self: ProxyBase, /, *args: Any, **keywords: Any) -> Any:
        return begin(self, *args, **keywords)

    return call


class _Opening:
    """The call of a method that yields."""

    __slots__ = ("_arguments", "_called", "_caller", "read")

    def __init__(self, called: CalledMethod, caller: Caller, arguments: Arguments) -> None:
        self._called = called
        self._caller = caller
        self._arguments = arguments
        self.read = called.result

    async def begin(self) -> tuple[AnyCall, Feeder | None]:
        """Make it; and what feeds it, if something does."""
        called, caller, items = self._called, self._caller, self._arguments.items
        if caller.peer is not None:
            await caller.peer.ready()
        if not called.is_plain:
            await caller.make_sure()
        message = await self._arguments.message(caller)
        call = caller.request(called.method.name, called.kind)
        feeder: Feeder | None = None
        try:
            await call.send_message(message, end=items is None)
            if items is not None:
                feeder = called.feeder(call, items)
                call.channel.start_soon(feeder.run)
        except BaseException as error:
            call.abandon(error)
            raise
        return call, feeder

    async def explained(self, call: AnyCall, error: GRPCError) -> Exception | None:
        """What to raise for its failure; None: it may begin once more."""
        failure = await self._called.explained(self._caller, call, error)
        return failure or (None if self._called.is_plain else error)

    def end(self) -> None:
        """It is over."""
        self._arguments.end()
