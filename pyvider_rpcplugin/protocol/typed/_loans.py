"""Functions and iterators that are lent to the other side for the length of a call.

An argument that is one of them is sent as a number, by which the other side calls it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import msgspec
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.rpc._codecs import CodecHandler

from ._errors import Registry, send_error
from ._formats import FORMATS
from ._interface import Function
from ._iterators import close_iterator
from ._messages import CANNOT_DECODE, CANNOT_ENCODE, decoder, encode, unexpected, unsendable
from ._results import ResultStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from grpclib.const import Handler

    from pyvider_rpcplugin.rpc import ClientStream, ServerStream

    from ._interface import Method, Parameter, Stream
    from ._peer import Peer

    AnyCall = ServerStream[Any, Any]

_SERVICE = "pyvider.rpcplugin.Loans"
_read_head = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


@final
class LoanKind:
    """What may be lent for one argument, and how it is called.

    Raises:
        ProtocolError: What it takes or gives cannot be sent.
    """

    def __init__(self, method: Method, parameter: Parameter) -> None:
        reference = parameter.reference
        assert reference is not None  # noqa: S101 - that is why
        self.where: str = f"{parameter.name}() of {method.where}"
        self.name: str = parameter.name
        self.is_optional: bool = parameter.is_optional or parameter.default is None
        self.errors: tuple[type[Exception], ...] = method.errors
        self._registry = Registry(method.errors)
        self.is_function: bool = isinstance(reference, Function)
        self.result: Any = _result_of(reference)
        self._read_result = decoder(self.result, f"what {self.where} returns")
        self.arity: int = 0
        self._read_arguments: Callable[[bytes], Any] | None = None
        if isinstance(reference, Function) and reference.parameters:
            self.arity = len(reference.parameters)
            kind: Any = tuple[reference.parameters]  # type: ignore[name-defined]  # made here
            self._read_arguments = decoder(kind, f"an argument of {self.where}")

    def check(self, thing: object, where: str) -> None:
        """See whether something can be lent as this.

        Raises:
            TypeError: It cannot.
        """
        fits = callable(thing) if self.is_function else hasattr(thing, "__aiter__")
        if not fits:
            what = "a function" if self.is_function else "an async iterator"
            msg = f"{where}: the argument {self.name!r} is {what}, not {thing!r}"
            raise TypeError(msg)

    # Where it was lent.

    def arguments(self, data: bytes) -> Iterable[Any]:
        """Read what it is called with."""
        if self._read_arguments is None:
            return ()
        try:
            arguments: tuple[Any, ...] = self._read_arguments(data)
        except CANNOT_DECODE as error:
            said = unexpected(f"an argument of {self.where}", error)
            raise GRPCError(Status.INVALID_ARGUMENT, said.message) from None
        return arguments

    def write(self, value: Any) -> bytes:
        """Write what it gave."""
        try:
            return encode(value)
        except CANNOT_ENCODE as error:
            said = unsendable(f"what {self.where} returned", error)
            raise GRPCError(Status.INTERNAL, said.message) from error

    # Where it was lent to.

    def read(self, data: bytes) -> Any:
        """Read what it gave."""
        try:
            return self._read_result(data)
        except CANNOT_DECODE as error:
            what = f"what {self.where} returned"
            raise unexpected(what, error) from None

    def failure(self, call: ClientStream[Any, Any], error: GRPCError) -> Exception:
        """What to raise for the failure of a call of it."""
        return self._registry.received(call, error, self.where)


def _result_of(reference: Stream | Function) -> Any:
    return reference.result if isinstance(reference, Function) else reference.item


@final
class Loan:
    """One thing that is lent, until `end`."""

    __slots__ = ("_loans", "kind", "number", "thing")

    def __init__(self, loans: Loans, number: int, kind: LoanKind, thing: Any) -> None:
        self._loans = loans
        self.number: int = number
        self.kind: LoanKind = kind
        self.thing: Any = thing

    def end(self) -> None:
        """Lend it no longer."""
        self._loans.end(self.number)


class Loans:
    """All that one side lends to the other, and the service by which that calls it."""

    def __init__(self) -> None:
        self._lent: dict[int, Loan] = {}
        self._latest = 0

    def lend(self, kind: LoanKind, thing: Any) -> Loan:
        """Lend something."""
        self._latest += 1
        loan = self._lent[self._latest] = Loan(self, self._latest, kind, thing)
        return loan

    def end(self, number: int) -> None:
        """Lend it no longer."""
        self._lent.pop(number, None)

    def __mapping__(self) -> dict[str, Handler]:
        """Return the handlers by their methods' full paths."""
        return {
            f"/{_SERVICE}/{name}": CodecHandler.make(handle, kind, FORMATS)
            for name, handle, kind in (
                ("Call", self._call, Cardinality.UNARY_UNARY),
                ("Iterate", self._iterate, Cardinality.UNARY_STREAM),
            )
        }

    async def _call(self, call: AnyCall) -> None:
        loan, arguments = await self._find(call, is_function=True)
        try:
            result = loan.thing(*loan.kind.arguments(arguments))
            if hasattr(result, "__await__"):
                result = await result
        except Exception as error:  # noqa: BLE001 - boundary: what a function raises is told
            await send_error(call, error, loan.kind.errors)
            return
        await call.send_message(loan.kind.write(result))

    async def _iterate(self, call: AnyCall) -> None:
        loan, _ = await self._find(call, is_function=False)
        items: Any = None
        try:
            try:
                items = loan.thing.__aiter__()
                async for item in items:
                    await call.send_message(loan.kind.write(item))
            finally:
                await close_iterator(items)
        except Exception as error:  # noqa: BLE001 - boundary: as above
            await send_error(call, error, loan.kind.errors)

    async def _find(self, call: AnyCall, *, is_function: bool) -> tuple[Loan, bytes]:
        data = await call.recv_message()
        try:
            number, arguments = _read_head(data or b"")
        except CANNOT_DECODE as error:
            msg = f"the call of something lent is malformed: {error}"
            raise GRPCError(Status.INVALID_ARGUMENT, msg) from None
        loan = self._lent.get(number)
        if loan is None or loan.kind.is_function is not is_function:
            msg = "what is called was lent to a call that has ended"
            raise GRPCError(Status.NOT_FOUND, msg)
        return loan, bytes(arguments)


@final
class RemoteFunction:
    """A function of the other side, for as long as the call that it was given to."""

    __slots__ = ("_kind", "_number", "_peer")

    def __init__(self, peer: Peer, kind: LoanKind, number: int) -> None:
        self._peer = peer
        self._kind = kind
        self._number = number

    def __repr__(self) -> str:
        return f"<remote function {self._kind.where}>"

    async def __call__(self, *args: Any) -> Any:
        """Call it."""
        kind = self._kind
        if len(args) != kind.arity:
            msg = f"{kind.where} takes {kind.arity} arguments, not {len(args)}"
            raise TypeError(msg)
        try:
            message = encode((self._number, args))
        except CANNOT_ENCODE as error:
            what = f"an argument of {kind.where}"
            raise unsendable(what, error) from None
        await self._peer.ready()
        call = _request(self._peer, "Call", Cardinality.UNARY_UNARY)
        try:
            data = await call.unary(message)
        except GRPCError as error:
            raise kind.failure(call, error) from None
        return kind.read(data)


def _request(peer: Peer, name: str, kind: Cardinality) -> ClientStream[Any, Any]:
    return peer.request(f"/{_SERVICE}/{name}", kind, bytes, bytes, codec=FORMATS["msgpack"])


@final
class _Iteration:
    """The call that reads an iterator of the other side."""

    def __init__(self, peer: Peer, kind: LoanKind, number: int) -> None:
        self._peer = peer
        self._kind = kind
        self._number = number
        self.read = kind.read

    async def begin(self) -> tuple[ClientStream[Any, Any], None]:
        await self._peer.ready()
        call = _request(self._peer, "Iterate", Cardinality.UNARY_STREAM)
        await call.send_message(encode((self._number, None)), end=True)
        return call, None

    async def explained(self, call: ClientStream[Any, Any], error: GRPCError) -> Exception:
        return self._kind.failure(call, error)

    def end(self) -> None:
        pass


def borrowed(peer: Peer, kind: LoanKind, number: int) -> RemoteFunction | ResultStream[Any]:
    """What stands for something that the other side has lent."""
    if kind.is_function:
        return RemoteFunction(peer, kind, number)
    return ResultStream(_Iteration(peer, kind, number))


def no_peer(where: str) -> ProtocolError:
    """The error of something lent where nobody can call it back."""
    msg = f"{where} takes a function or an iterator to call back, which works only between a "
    msg += "plugin and the host that started it"
    return ProtocolError(msg, phase="call")
