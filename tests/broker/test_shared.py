"""Brokers over one connection in memory: knocks, their times, and other sides that misbehave."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio.testing

from pyvider_rpcplugin import TransportError
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.services import Broker, SharedWays
from pyvider_rpcplugin.services._messages import ConnInfo, Knock
from pyvider_rpcplugin.transport.memory import MemoryStream
from pyvider_rpcplugin.transport.multiplex import MultiplexedListener
from tests.rpc.support import Echo

from .test_broker import reach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Shared:
    """A host's broker and a plugin's."""

    def __init__(self) -> None:
        self.main = MultiplexedListener()
        self.host_ways = SharedWays(client=True, credentials=None, handshake_timeout=5)
        self.plugin_ways = SharedWays(
            client=False, credentials=None, handshake_timeout=5, default=self.main
        )
        self.host, self.plugin = (
            Broker(ways, peer=peer, options=RPCOptions(), grace=0.1, connection_timeout=10)
            for ways, peer in ((self.host_ways, "plugin"), (self.plugin_ways, "host"))
        )


@asynccontextmanager
async def shared() -> AsyncIterator[Shared]:
    both = Shared()
    server = Server([both.plugin])
    one, other = MemoryStream.pair()
    async with anyio.create_task_group() as tg:
        await tg.start(both.host_ways.run, one)
        await tg.start(both.plugin_ways.run, other)
        await tg.start(server.serve, both.main)
        await tg.start(both.plugin.run)
        await tg.start(both.host.run)

        async def connect() -> Any:
            return both.host_ways.open()

        async with open_channel(Channel(connect)) as channel:
            tg.start_soon(both.host.keep_conversation, channel)
            yield both
            tg.cancel_scope.cancel()


def in_virtual_time(main: Any) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


async def test_both_sides_serve_and_dial_as_often_as_they_like() -> None:
    with anyio.fail_after(5):
        async with shared() as both:
            for one, other in ((both.host, both.plugin), (both.plugin, both.host)):
                async with one.serve(Echo()) as number:
                    for _ in range(3):
                        assert await reach(other, number) == "x"


async def test_a_number_is_served_by_one() -> None:
    with anyio.fail_after(5):
        async with shared() as both, both.host.serve(Echo(), service_id=3):
            with pytest.raises(TransportError, match="served already"):
                async with both.host.serve(Echo(), service_id=3):
                    pass


def test_a_knock_that_nobody_answers_is_an_error_that_says_so() -> None:
    async def main() -> None:
        async with shared() as both:
            began = anyio.current_time()
            with pytest.raises(TransportError, match="nobody answered the knock on service 7"):
                await reach(both.host, 7)
            assert anyio.current_time() - began == pytest.approx(5)
            async with both.plugin.serve(Echo()) as number:
                assert await reach(both.host, number) == "x"

    in_virtual_time(main)


def test_a_service_may_come_after_the_knock() -> None:
    async def main() -> None:
        async with shared() as both, anyio.create_task_group() as tg:
            heard = anyio.Event()

            async def dial() -> None:
                assert await reach(both.host, 1) == "x"
                heard.set()

            tg.start_soon(dial)
            await anyio.sleep(4)
            async with both.plugin.serve(Echo(), service_id=1):
                await heard.wait()

    in_virtual_time(main)


def test_a_dial_that_was_given_up_does_not_block_the_next_one_for_long() -> None:
    async def main() -> None:
        async with shared() as both, both.plugin.serve(Echo()) as number:
            with anyio.move_on_after(1):
                await reach(both.host, 99)
            assert await reach(both.host, number) == "x"
            assert anyio.current_time() > 0

    in_virtual_time(main)


async def test_an_answer_that_says_no_is_the_error() -> None:
    with anyio.fail_after(5):
        async with shared() as both, anyio.create_task_group() as tg:

            async def dial() -> None:
                with pytest.raises(TransportError, match="refused by the other side: go away"):
                    await reach(both.host, 8)

            tg.start_soon(dial)
            await anyio.wait_all_tasks_blocked()
            both.plugin_ways.say(ConnInfo(8, knock=Knock(knock=True, ack=True, error="go away")))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (ConnInfo(3, knock=Knock(knock=True, ack=True)), "without reason"),
        (ConnInfo(3, knock=Knock()), "without reason"),
        (ConnInfo(3, "unix", "/tmp/x"), "nothing is announced"),
    ],
)
async def test_a_message_that_makes_no_sense_is_logged_and_does_no_harm(
    message: ConnInfo, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(5):
        async with shared() as both:
            both.plugin_ways.say(message)
            async with both.plugin.serve(Echo()) as number:
                assert await reach(both.host, number) == "x"
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert words in errors[0]


async def test_a_stream_without_a_knock_is_refused_by_a_host(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(5):
        async with shared() as both:
            for _ in range(30):
                stream = both.plugin_ways.open()
                with pytest.raises(anyio.BrokenResourceError):
                    await stream.receive()
            async with both.host.serve(Echo()) as number:
                assert await reach(both.plugin, number) == "x"
    errors = [r for r in caplog.records if "without knocking" in r.getMessage()]
    assert len(errors) == 20


@pytest.mark.parametrize("racing", [False, True])
async def test_serving_and_dialling_can_be_cancelled_anywhere(racing: bool) -> None:
    from tests.rpc.test_cancellation import sweep

    with anyio.fail_after(25):
        async with shared() as both:

            async def dial() -> None:
                async with both.host.serve(Echo()) as number:
                    assert await reach(both.plugin, number) == "x"

            async def check() -> None:
                assert not both.host._services
                await dial()

            assert await sweep(dial, check, racing=racing) > 3
