"""Streams that share a connection behave like connections of their own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio.testing
from anyio import lowlevel

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport.memory import MemoryStream
from pyvider_rpcplugin.transport.multiplex import (
    MultiplexedListener,
    MultiplexedStream,
    Multiplexer,
)
from pyvider_rpcplugin.yamux._frames import FrameType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZE = 3_000_000


class Ends:
    """Both ends of a connection."""

    def __init__(self) -> None:
        self.raw = MemoryStream.pair()
        self.listeners = MultiplexedListener(), MultiplexedListener()
        self.client, self.server = (
            Multiplexer(stream, client=index == 0, on_stream=listener.offer)
            for index, (stream, listener) in enumerate(zip(self.raw, self.listeners, strict=True))
        )

    async def pair(self) -> tuple[MultiplexedStream, MultiplexedStream]:
        """Two ends of a new stream."""
        return self.client.open(), await self.listeners[1].accept()


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    async with anyio.create_task_group() as tg:
        await tg.start(made.client.run)
        await tg.start(made.server.run)
        yield made
        tg.cancel_scope.cancel()


async def read_all(stream: MultiplexedStream) -> bytes:
    data = bytearray()
    with pytest.raises(anyio.EndOfStream):
        while True:
            data += await stream.receive()
    return bytes(data)


async def test_much_in_small_pieces_that_nobody_reads_takes_little_more_than_its_octets() -> None:
    with anyio.fail_after(10):
        async with ends() as both:
            one, there = await both.pair()
            session = both.client.session
            for number in range(20_000):
                session.send(one._stream, bytes([number % 256]))
            both.client.notify()
            while sum(map(len, there._chunks)) < 20_000:
                await lowlevel.checkpoint()
            assert len(there._chunks) < 10
            await one.send_eof()
            assert await read_all(there) == bytes(number % 256 for number in range(20_000))


async def test_a_slow_stream_of_idle_frames_is_no_flood() -> None:
    with anyio.fail_after(10):
        async with ends() as both:
            one, there = await both.pair()
            for _ in range(3):
                both.server._refreshed_at = -10.0
                for _ in range(9000):
                    both.client.session._say(FrameType.WINDOW_UPDATE, 0, one._stream.id, 0)
                both.client.notify()
                await one.send(b"x")
                assert await there.receive() == b"x"
            assert both.server.lost is None


async def test_both_sides_open_streams_and_much_goes_through_in_order() -> None:
    async def send(stream: MultiplexedStream, letter: bytes) -> None:
        await stream.send(letter * SIZE)
        await stream.send_eof()

    with anyio.fail_after(10):
        async with ends() as both:
            one, there = await both.pair()
            two, here = both.server.open(), await both.listeners[0].accept()
            async with anyio.create_task_group() as tg:
                for stream, letter in ((one, b"a"), (there, b"b"), (two, b"c"), (here, b"d")):
                    tg.start_soon(send, stream, letter)
                assert await read_all(there) == b"a" * SIZE
                assert await read_all(here) == b"c" * SIZE
                assert await read_all(one) == b"b" * SIZE
                assert await read_all(two) == b"d" * SIZE
            assert not both.client.session.streams
            assert not both.server.session.streams


async def test_a_stream_that_nobody_reads_does_not_hold_up_another_one() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            stuck, _unread = await both.pair()
            one, there = await both.pair()
            async with anyio.create_task_group() as tg:
                tg.start_soon(stuck.send, bytes(SIZE))
                await one.send(b"through")
                assert await there.receive() == b"through"
                tg.cancel_scope.cancel()


async def test_closing_lets_the_other_side_read_what_was_sent_before() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            one, there = await both.pair()
            await one.send(b"last words")
            await one.aclose()
            await one.aclose()
            assert await read_all(there) == b"last words"
            for call in (one.receive, lambda: one.send(b"x"), one.send_eof):
                with pytest.raises(anyio.ClosedResourceError):
                    await call()
            await there.aclose()
            while both.client.session.streams or both.server.session.streams:
                await lowlevel.checkpoint()


async def test_who_sends_to_a_stream_that_was_closed_does_not_get_stuck() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            one, there = await both.pair()
            await there.aclose()
            await one.send(bytes(SIZE))
            await one.aclose()


async def test_closing_wakes_who_receives() -> None:
    with anyio.fail_after(5):
        async with ends() as both, anyio.create_task_group() as tg:
            one, _there = await both.pair()

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await one.receive()

            tg.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await one.aclose()


async def test_a_stream_that_was_refused_is_broken() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            one, there = await both.pair()
            there.refuse()
            with pytest.raises(anyio.BrokenResourceError):
                await one.receive()
            with pytest.raises(anyio.BrokenResourceError):
                await one.send(b"x")


@pytest.mark.parametrize("how", ["peer closes", "we close", "garbage"])
async def test_all_streams_end_with_the_connection(how: str) -> None:
    with anyio.fail_after(5):
        async with ends() as both, anyio.create_task_group() as tg:
            one, _there = await both.pair()
            raised: list[type[BaseException]] = []

            async def receive() -> None:
                try:
                    await one.receive()
                except (anyio.BrokenResourceError, anyio.EndOfStream) as exc:
                    raised.append(type(exc))

            tg.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            if how == "peer closes":
                both.server.close()
            elif how == "we close":
                both.client.close()
            else:
                await both.raw[1].send(b"\xff" * 12)
            while not raised:
                await lowlevel.checkpoint()
            assert raised == [anyio.BrokenResourceError]
            with pytest.raises(TransportError, match="no more streams"):
                both.client.open()


async def test_what_was_said_is_sent_before_a_flush_returns() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            one, there = await both.pair()
            await one.send(b"x" * 100_000)
            await both.client.flush()
            assert both.client.session.output_size == 0
            assert len(await there.receive()) > 0


async def test_a_listener_that_closes_closes_what_waits() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            one = both.client.open()
            await both.client.flush()
            await anyio.wait_all_tasks_blocked()
            await both.listeners[1].aclose()
            with pytest.raises(anyio.EndOfStream):
                await one.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await both.listeners[1].accept()


async def test_streams_that_are_given_up_before_they_were_accepted_do_not_pile_up() -> None:
    with anyio.fail_after(5):
        async with ends() as both:
            for _ in range(20):
                for _ in range(100):
                    both.client.open().refuse()
                await both.client.flush()
                await anyio.wait_all_tasks_blocked()
            assert len(both.listeners[1]._waiting) <= 512
            one, there = await both.pair()
            await one.send(b"x")
            assert await there.receive() == b"x"


def in_virtual_time(main: Any) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


def test_a_quiet_connection_stays_up_and_a_dead_one_is_noticed() -> None:
    async def main() -> None:
        async with ends() as both:
            one, there = await both.pair()
            await anyio.sleep(1000)
            await one.send(b"still here")
            assert await there.receive() == b"still here"
        raw, _nobody_answers = MemoryStream.pair()
        alone = Multiplexer(raw, client=True, on_stream=print)
        began = anyio.current_time()
        await alone.run()
        assert 30 < anyio.current_time() - began <= 41
        assert "did not answer" in str(alone.lost)

    in_virtual_time(main)


def test_a_stream_that_the_other_side_never_closes_is_given_up() -> None:
    async def main() -> None:
        async with ends() as both:
            one, there = await both.pair()
            await one.aclose()
            await anyio.sleep(200)
            assert not both.client.session.streams
            with pytest.raises(anyio.BrokenResourceError):
                await there.send(b"x")

    in_virtual_time(main)
