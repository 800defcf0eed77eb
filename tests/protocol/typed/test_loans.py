"""Functions and iterators that are lent, where one side does not keep to what was agreed on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import msgspec
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.protocol.typed import (
    Loans,
    Peer,
    RemoteError,
    TypedService,
    make_proxy,
    raises,
)
from pyvider_rpcplugin.rpc import Channel, RawCodec, Server
from tests.rpc.support import linked


class Missing(Exception):
    pass


@raises(Missing)
class Borrower:
    """Calls what it is lent as it is told to."""

    def __init__(self) -> None:
        self.closed = anyio.Event()

    async def call(
        self, function: Annotated[Callable[[int], Awaitable[str]], "one that is lent"], how: str
    ) -> Any:
        odd: Any = function
        if how == "another type":
            return await odd("x")
        if how == "too many":
            return await odd(1, 2)
        if how == "unsendable":
            return await odd(object())
        return repr(function) if how == "shown" else await function(1)

    async def first(self, items: AsyncIterator[int] | None, count: int) -> list[int]:
        found: list[int] = []
        if items is not None:
            async for item in items:
                found.append(item)
                if len(found) == count:
                    break
        return found

    async def default(self, function: Callable[[], Awaitable[int]] = lambda: one()) -> int:  # noqa: PLW0108
        return await function()


async def one() -> int:
    return 1


class End(Peer):
    """The other side, over two plain channels."""

    waits = False

    def __init__(self, channel: Channel, loans: Loans) -> None:
        self.channel = channel
        self.loans = loans

    def request(self, *args: Any, **keywords: Any) -> Any:
        return self.channel.request(*args, **keywords)

    async def lender(self) -> Loans:
        return self.loans


@asynccontextmanager
async def lending() -> AsyncIterator[tuple[Any, Channel]]:
    """A proxy of a borrower, and the channel by which that calls back."""
    loans = Loans()
    async with linked(server=Server([loans])) as back:
        service = TypedService(Borrower(), peer=End(back.channel, loans))
        async with linked(server=Server([service])) as ours:
            yield make_proxy(Borrower, End(ours.channel, loans)), back.channel
            assert not loans._lent
            await back.check_nothing_is_left()


async def text(number: int) -> str:
    return f"number {number}"


async def test_a_function_is_called_with_what_it_takes() -> None:
    async with lending() as (borrower, _):
        with anyio.fail_after(5):
            assert await borrower.call(text, "well") == "number 1"
            assert "function()" in await borrower.call(text, "shown")
            assert await borrower.default(one) == 1
            assert await borrower.default() == 1
            for how, complaint in [
                (
                    "another type",
                    r"an argument of function\(\) of Borrower\.call\(\).*Expected `int`",
                ),
                ("too many", r"takes 1 arguments, not 2"),
                ("unsendable", r"an argument of function\(\) of .* cannot be sent"),
            ]:
                with pytest.raises(GRPCError, match=complaint):
                    await borrower.call(text, how)


async def test_a_function_may_be_a_plain_one() -> None:
    async with lending() as (borrower, _):
        assert await borrower.call(str, "well") == "1"
        with pytest.raises(GRPCError, match="returned cannot be sent"):
            await borrower.call(lambda _: object(), "well")


class Numbers:
    """Counts, and notes how that ended."""

    def __init__(self, fail_at: int = -1, item: Any = None) -> None:
        self.closed = anyio.Event()
        self.fail_at = fail_at
        self.item = item

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for n in range(1000):
                if n == self.fail_at:
                    raise Missing(n)
                yield n if self.item is None else self.item
        finally:
            self.closed.set()


async def test_an_iterator_is_read_as_far_as_it_is_wanted() -> None:
    numbers = Numbers()
    async with lending() as (borrower, _):
        with anyio.fail_after(5):
            assert await borrower.first(numbers, 3) == [0, 1, 2]
            await numbers.closed.wait()
            assert await borrower.first(None, 3) == []
            with pytest.raises(Missing, match="2"):
                await borrower.first(Numbers(fail_at=2), 3)
            with pytest.raises(RemoteError, match="RuntimeError"):
                await borrower.first(Failing(), 3)
            with pytest.raises(GRPCError, match="returned is not what was expected"):
                await borrower.first(Numbers(item="x"), 3)
            with pytest.raises(TypeError, match="'items' is an async iterator, not 7"):
                await borrower.first(7, 3)


class Failing:
    def __aiter__(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("name", ["Call", "Iterate"])
async def test_a_call_of_something_that_is_not_lent_is_refused(name: str) -> None:
    kind = {"Call": Cardinality.UNARY_UNARY, "Iterate": Cardinality.UNARY_STREAM}[name]
    async with lending() as (_, back):
        for data, status in [
            (msgspec.msgpack.encode([7, []]), Status.NOT_FOUND),
            (b"", Status.INVALID_ARGUMENT),
            (b"\xc1", Status.INVALID_ARGUMENT),
            (msgspec.msgpack.encode([2**63, []]), Status.NOT_FOUND),
            (b"\x92\x01" + b"\x91" * 100_000, Status.INVALID_ARGUMENT),
        ]:
            path = f"/pyvider.rpcplugin.Loans/{name}"
            with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
                async with back.request(
                    path, kind, bytes, bytes, codec=RawCodec("msgpack")
                ) as stream:
                    await stream.send_message(data, end=True)
                    await stream.recv_message()
            assert caught.value.status is status


class NoArguments:
    async def take(self, function: Callable[..., Awaitable[None]]) -> None: ...


class NotAwaited:
    async def take(self, function: Callable[[int], int]) -> None: ...


class Joined:
    async def take(self, function: Callable[[int], Awaitable[int]] | int | str) -> None: ...


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (NoArguments, r"NoArguments\.take\(\), argument 'function': a function to call back is"),
        (NotAwaited, r"NotAwaited\.take\(\), argument 'function': a function to call back is"),
        (Joined, r"Joined\.take\(\), argument 'function': .* can be joined with None only"),
    ],
)
def test_what_cannot_be_lent_says_so_by_name(handler: type, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        TypedService(handler())
