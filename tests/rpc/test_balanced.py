"""A channel over several others."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import PluginExit
from pyvider_rpcplugin.rpc import ConnectionLost, DeadlineExceeded
from pyvider_rpcplugin.rpc._balanced import BalancedChannel
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

from .support import Echo, Linked, linked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Place(Echo):
    """Answers with its name, each call once `gate` is open."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.calls = 0
        self.gate = anyio.Event()
        self.gate.set()

    async def Unary(self, stream: Any) -> None:
        await stream.recv_message()
        self.calls += 1
        await self.gate.wait()
        await stream.send_message(EchoReply(text=self.name))


@asynccontextmanager
async def places(*names: str) -> AsyncIterator[dict[str, tuple[Linked, Place]]]:
    async with AsyncExitStack() as stack:
        made = {}
        for name in names:
            place = Place(name)
            made[name] = (await stack.enter_async_context(linked(place)), place)
        yield made


async def ask(channel: BalancedChannel, **options: Any) -> str:
    reply = await EchoStub(channel).Unary(EchoRequest(), **options)
    text: str = reply.text
    return text


async def test_calls_go_where_the_fewest_are_open() -> None:
    async with places("a", "b", "c") as made:
        channel = BalancedChannel()
        for linked_, place in made.values():
            channel.add(linked_.channel)
            place.gate = anyio.Event()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(9):
                    tasks.start_soon(ask, channel)
                    await anyio.wait_all_tasks_blocked()
                assert channel.calls() == 9
                assert [place.calls for _, place in made.values()] == [3, 3, 3]
                for _, place in made.values():
                    place.gate.set()
        assert channel.calls() == 0


async def test_calls_wait_for_the_first_channel_and_say_that_they_want_one() -> None:
    wanted: list[None] = []
    async with places("a") as made:
        channel = BalancedChannel(on_wanted=lambda: wanted.append(None))
        texts: list[str] = []

        async def call() -> None:
            texts.append(await ask(channel))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                assert (len(wanted), channel.calls()) == (2, 2)
                channel.add(made["a"][0].channel)
        assert texts == ["a", "a"]
        assert await ask(channel) == "a"
        assert len(wanted) == 2


async def test_a_call_waits_no_longer_than_its_deadline() -> None:
    channel = BalancedChannel()
    with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
        await ask(channel, timeout=0.01)
    assert channel.calls() == 0


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    channel = BalancedChannel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, channel)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert channel.calls() == 0


async def test_refused_calls_fail_at_once_until_there_is_a_channel_again() -> None:
    async with places("a") as made:
        channel = BalancedChannel()

        async def call() -> None:
            with pytest.raises(ConnectionLost, match="gave up"):
                await ask(channel)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                channel.refuse(lambda: ConnectionLost("gave up"))
            await call()
            channel.add(made["a"][0].channel)
            assert await ask(channel) == "a"


async def test_what_is_removed_finishes_its_calls_and_gets_no_more() -> None:
    async with places("old", "new") as made:
        channel = BalancedChannel()
        old, old_place = made["old"]
        old_place.gate = anyio.Event()
        channel.add(old.channel)
        texts: list[str] = []

        async def call() -> None:
            texts.append(await ask(channel))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                channel.add(made["new"][0].channel)
                channel.remove(old.channel)
                channel.remove(old.channel)
                assert [await ask(channel) for _ in range(3)] == ["new"] * 3
                assert channel.calls() == 1
                old_place.gate.set()
        assert texts == ["old"]
        assert channel.calls() == 0
        assert channel.members == (made["new"][0].channel,)


async def test_one_that_is_gone_never_fails_a_call_that_another_can_take() -> None:
    async with places("a", "b") as made:
        channel = BalancedChannel()
        for linked_, _ in made.values():
            channel.add(linked_.channel)
        made["a"][0].channel.endpoint_ended(PluginExit(3, ()))
        with anyio.fail_after(5):
            assert [await ask(channel) for _ in range(5)] == ["b"] * 5
            made["b"][0].channel.close()
            with pytest.raises(DeadlineExceeded):  # It waits for another one.
                await ask(channel, timeout=0.01)


async def test_a_call_that_had_begun_is_not_repeated_elsewhere() -> None:
    async with places("a", "b") as made:
        channel = BalancedChannel()
        first, place = made["a"]
        place.gate = anyio.Event()
        channel.add(first.channel)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    with pytest.raises(GRPCError) as caught:
                        await ask(channel)
                    assert caught.value.status in {Status.UNAVAILABLE, Status.CANCELLED}

                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                channel.add(made["b"][0].channel)
                first.channel.close()
        assert made["b"][1].calls == 0


async def test_calls_that_wait_for_their_turn_get_it() -> None:
    async with places("a") as made:
        channel = BalancedChannel()
        linked_, place = made["a"]
        place.gate = anyio.Event()
        channel.add(linked_.channel)
        await ask_limit(linked_, 1)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(ask, channel)
                await anyio.wait_all_tasks_blocked()
                assert place.calls == 1
                place.gate.set()
        assert place.calls == 4


async def ask_limit(linked_: Linked, number: int) -> None:
    """Have the server take so many calls at once."""
    connection = linked_.channel.connection_now()
    assert connection is not None
    connection.h2.remote.max_concurrent_streams = number


async def test_draining_ends_when_the_last_call_has() -> None:
    async with places("a") as made:
        channel = BalancedChannel()
        linked_, place = made["a"]
        place.gate = anyio.Event()
        channel.add(linked_.channel)
        drained = anyio.Event()

        async def wait() -> None:
            await channel.wait_drained(linked_.channel)
            drained.set()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, channel)
                await anyio.wait_all_tasks_blocked()
                channel.remove(linked_.channel)
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                assert not drained.is_set()
                place.gate.set()


async def test_what_waits_can_be_failed_without_refusing_what_comes() -> None:
    async with places("a") as made:
        channel = BalancedChannel()

        async def call() -> None:
            with pytest.raises(ConnectionLost, match="no luck"):
                await ask(channel)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                channel.fail_waiting(lambda: ConnectionLost("no luck"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, channel)
                await anyio.wait_all_tasks_blocked()
                channel.add(made["a"][0].channel)


async def test_tasks_of_calls_live_until_the_channel_is_closed() -> None:
    channel = BalancedChannel()
    ended = anyio.Event()

    async def feed() -> None:
        try:
            await anyio.Event().wait()
        finally:
            ended.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(channel.run)
            channel.start_soon(feed)
            await anyio.wait_all_tasks_blocked()
            channel.close()
    assert ended.is_set()
    with pytest.raises(GRPCError):
        channel.start_soon(feed)


async def test_after_close_calls_fail() -> None:
    async with places("a") as made:
        channel = BalancedChannel()

        async def call() -> None:
            with pytest.raises(GRPCError) as caught:
                await ask(channel)
            assert caught.value.status is Status.UNAVAILABLE

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            channel.close()
        channel.add(made["a"][0].channel)
        await call()
