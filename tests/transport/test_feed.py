"""What a stream hands over as it comes, plain or encrypted, to who need not be woken for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import anyio
import pytest

from pyvider_rpcplugin.transport import UnixSocketTransport
from tests.transport.test_contract import Pair, some_turns
from tests.transport.test_tls import OURS, auto, wrap

pytestmark = pytest.mark.net


@asynccontextmanager
async def plain():
    async with Pair(UnixSocketTransport) as streams:
        yield streams


@asynccontextmanager
async def encrypted():
    async with plain() as (ours, theirs):
        wrapped = []

        async def serve() -> None:
            wrapped.append(await wrap(theirs, auto(True, OURS.der), server_side=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            client = await wrap(ours, auto(False, OURS.der), server_side=False)
        try:
            yield client, wrapped[0]
        finally:
            await client.aclose()
            await wrapped[0].aclose()


pairs = pytest.mark.parametrize("pair", [plain, encrypted])


class Taker:
    """Keeps what it is given, until it has enough, and says when more has come."""

    def __init__(self, enough: int = 1 << 30) -> None:
        self.data = b""
        self.enough = enough
        self.came = anyio.Event()

    def __call__(self, data: bytes) -> bool:
        self.data += data
        self.came.set()
        return len(self.data) < self.enough

    async def wait_for(self, size: int) -> None:
        while len(self.data) < size:
            self.came = anyio.Event()
            await self.came.wait()


@asynccontextmanager
async def fed(stream, taker):
    """Feed the taker meanwhile."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.feed, taker)
        yield
        tasks.cancel_scope.cancel()


@pairs
async def test_all_that_arrives_is_handed_over_until_the_peer_has_ended(pair):
    taker = Taker()
    sent = bytes(range(256)) * 8000
    with anyio.fail_after(5):
        async with pair() as (ours, theirs):

            async def send() -> None:
                for start in range(0, len(sent), 300_000):
                    await theirs.send(sent[start : start + 300_000])
                    await some_turns()
                await theirs.aclose()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                with pytest.raises(anyio.EndOfStream):
                    await ours.feed(taker)
    assert taker.data == sent


@pairs
async def test_who_has_enough_leaves_the_rest_to_others(pair):
    taker = Taker(enough=9)
    with anyio.fail_after(5):
        async with pair() as (ours, theirs):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ours.feed, taker)
                for number, part in enumerate((b"one", b"two", b"six")):
                    await theirs.send(part)
                    await taker.wait_for(3 * number)
            assert taker.data == b"onetwosix"
            await theirs.send(b"three")
            assert await ours.receive() == b"three"


@pairs
async def test_cancelling_loses_nothing(pair):
    taker = Taker()
    with anyio.fail_after(5):
        async with pair() as (ours, theirs):
            async with fed(ours, taker):
                await theirs.send(b"one")
                await taker.wait_for(3)
            await theirs.send(b"two")
            await some_turns()
            assert await ours.receive() == b"two"
            async with fed(ours, taker):
                await theirs.send(b"three")
                await taker.wait_for(8)
    assert taker.data == b"onethree"


@pairs
async def test_what_the_taker_raises_is_raised_to_who_feeds_it(pair):
    def refuse(data: bytes) -> bool:
        raise ValueError(data)

    def refuse_later(data: bytes) -> bool:
        if data != b"bad":
            return True
        raise ValueError(data)

    with anyio.fail_after(5):
        async with pair() as (ours, theirs):
            await theirs.send(b"at once")
            with pytest.raises(ValueError, match="at once"):
                await ours.feed(refuse)

            async def send() -> None:
                for part in (b"good", b"better", b"bad"):
                    await theirs.send(part)
                    await some_turns()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                with pytest.raises(ValueError, match="bad"):
                    await ours.feed(refuse_later)
            await theirs.send(b"after it")
            assert await ours.receive() == b"after it"


class _Odd(BaseException):
    """As pytest's outcomes are, and groups of such: asyncio would only log it."""


@pairs
async def test_what_is_no_exception_is_raised_to_who_feeds_it_too(pair):
    def refuse_later(data: bytes) -> bool:
        if data != b"bad":
            return True
        raise BaseExceptionGroup("odd", [_Odd()])

    with anyio.fail_after(5):
        async with pair() as (ours, theirs):

            async def send() -> None:
                for part in (b"good", b"better", b"bad"):
                    await theirs.send(part)
                    await some_turns()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                with pytest.raises(BaseExceptionGroup) as caught:
                    await ours.feed(refuse_later)
            assert isinstance(caught.value.exceptions[0], _Odd)


@pairs
async def test_closing_the_stream_ends_it(pair):
    taker = Taker()
    with anyio.fail_after(5):
        async with pair() as (ours, theirs), anyio.create_task_group() as tasks:

            async def close() -> None:
                await theirs.send(b"one")
                await taker.wait_for(3)
                await ours.aclose()

            tasks.start_soon(close)
            with pytest.raises(anyio.ClosedResourceError):
                await ours.feed(taker)


@pairs
async def test_nobody_else_receives_meanwhile(pair):
    taker = Taker()
    with anyio.fail_after(5):
        async with pair() as (ours, theirs), fed(ours, taker):
            await theirs.send(b"one")
            await taker.wait_for(3)
            await some_turns()
            with pytest.raises(anyio.BusyResourceError):
                await ours.receive()
            with pytest.raises(anyio.BusyResourceError):
                await ours.feed(taker)


async def start_a_task_from_the_taker(pair) -> None:
    """It asks anyio for the time, too, which has to know for that which loop is running."""
    ran = anyio.Event()

    async def run() -> None:
        with anyio.move_on_after(1):
            await anyio.lowlevel.checkpoint()
        ran.set()

    with anyio.fail_after(5):
        async with pair() as (ours, theirs), anyio.create_task_group() as tasks:

            def take(data: bytes) -> bool:
                if data == b"third" and anyio.current_time() > 0:
                    tasks.start_soon(run)
                return True

            async with fed(ours, take):
                # The first are fetched by the task itself.
                for part in (b"first", b"second", b"third"):
                    await theirs.send(part)
                    await some_turns()
                await ran.wait()


@pairs
async def test_the_taker_may_start_tasks(pair):
    await start_a_task_from_the_taker(pair)


def test_the_taker_may_start_tasks_where_anyio_did_not_start_the_loop():
    """Asyncio's own way to run: there, without a task, nothing else tells anyio where it is."""
    asyncio.run(start_a_task_from_the_taker(plain))
