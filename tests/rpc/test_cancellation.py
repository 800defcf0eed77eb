"""Cancelling one call never harms another: operations are cancelled at step 1, 2, 3 and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, _connection, open_channel
from pyvider_rpcplugin.transport import MemoryTransport
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.rpc.support import Echo, Linked, linked, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

_MOST_STEPS = 2000


class Stepped:
    """Runs a coroutine and cancels a scope at one of the points where it waits.

    Args:
        coroutine: What to run.
        scope: What to cancel.
        step: At which one, from 1.
        racing: Cancel when the waiting is over, rather than when it begins.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        scope: anyio.CancelScope,
        step: int,
        *,
        racing: bool,
    ) -> None:
        self._coroutine = coroutine
        self._scope = scope
        self._left = step
        self._racing = racing
        self.done = False

    def __await__(self) -> Generator[Any, Any, None]:
        send: Any = self._coroutine.send
        throw: Any = self._coroutine.throw
        act, value = send, None
        while True:
            try:
                waited_for = act(value)
            except StopIteration:
                self.done = True
                return
            self._left -= 1
            if self._left == 0 and not self._racing:
                self._scope.cancel()
            try:
                act, value = send, (yield waited_for)
            except BaseException as error:
                act, value = throw, error
            if self._left == 0 and self._racing:
                self._scope.cancel()


async def sweep(
    operation: Callable[[], Coroutine[Any, Any, Any]],
    check: Callable[[], Awaitable[None]],
    *,
    racing: bool,
) -> int:
    """Cancel `operation` at every step, and check after each; return how many steps there are."""
    for step in range(1, _MOST_STEPS):
        with anyio.CancelScope() as scope:
            stepped = Stepped(operation(), scope, step, racing=racing)
            await stepped
        await check()
        if stepped.done and not scope.cancel_called:
            return step - 1
    pytest.fail("it never ends")


async def _large_unary(ours: Linked) -> None:
    data = bytes(400_000)
    assert len((await ours.stub.Unary(EchoRequest(data=data))).data) == len(data)


async def _unary(ours: Linked) -> None:
    assert (await ours.stub.Unary(EchoRequest(text="x"))).text == "x"


async def _server_stream(ours: Linked) -> None:
    replies = await ours.stub.ServerStream(EchoRequest(data=bytes(20_000), count=20))
    assert len(replies) == 20


async def _client_stream(ours: Linked) -> None:
    reply = await ours.stub.ClientStream([EchoRequest(data=bytes(20_000))] * 20)
    assert reply.index == 20


async def _bidi(ours: Linked) -> None:
    async with request(ours.channel, "Bidi", timeout=1000) as stream:
        for number in range(5):
            await stream.send_message(EchoRequest(text=str(number), data=bytes(30_000)))
            reply = await stream.recv_message()
            assert reply is not None
            assert reply.text == str(number)
        await stream.end()
        assert await stream.recv_message() is None
        await stream.recv_trailing_metadata()


async def _left_early(ours: Linked) -> None:
    async with request(ours.channel, "ServerStream") as stream:
        await stream.send_message(EchoRequest(data=bytes(5_000), count=100))
        for _ in range(3):
            assert await stream.recv_message() is not None


async def _compressed(ours: Linked) -> None:
    async with request(ours.channel, "Bidi", timeout=1000) as stream:
        await stream.send_message(EchoRequest(data=bytes(400_000)), end=True)
        reply = await stream.recv_message()
        assert reply is not None
        assert len(reply.data) == 400_000


OPERATIONS = {
    "unary": _unary,
    "large unary": _large_unary,
    "server stream": _server_stream,
    "client stream": _client_stream,
    "bidi": _bidi,
    "left early": _left_early,
}
races = pytest.mark.parametrize("racing", [False, True], ids=["waiting", "racing"])


@pytest.fixture(params=["memory", "unix", "unix, each at once"])
def link(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the two sides are connected, and whether what is read is always seen to at once."""
    name: str = request.param
    if name.endswith("at once"):
        monkeypatch.setattr(_connection, "_OFTEN_ALONE", 0)
    return name.split(",", maxsplit=1)[0]


@races
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_call_may_be_cancelled_at_every_step(name: str, link: str, racing: bool) -> None:
    operation = OPERATIONS[name]
    async with linked(link=link) as ours:
        steps = await sweep(lambda: operation(ours), ours.check_nothing_is_left, racing=racing)
        assert steps > 0
        assert len(ours.channel._connections) == 1
        assert len(ours.server._connections) == 1


@races
async def test_a_call_of_large_compressed_messages_may_be_cancelled_at_every_step(
    racing: bool,
) -> None:
    gzip = RPCOptions(compression="gzip")
    async with linked(channel_options=gzip, server_options=gzip) as ours:
        await sweep(lambda: _compressed(ours), ours.check_nothing_is_left, racing=racing)


@races
async def test_one_of_two_calls_may_be_cancelled_at_every_step_of_it(racing: bool) -> None:
    async with linked() as ours:
        async with request(ours.channel, "Bidi") as other:
            number = 0

            async def check() -> None:
                nonlocal number
                number += 1
                with anyio.fail_after(5):
                    await other.send_message(EchoRequest(text=str(number), data=bytes(1000)))
                    reply = await other.recv_message()
                assert reply is not None
                assert reply.text == str(number)

            await sweep(lambda: _large_unary(ours), check, racing=racing)
            await other.end()
        await ours.check_nothing_is_left()


@races
async def test_waiting_for_a_turn_may_be_cancelled_at_every_step(racing: bool) -> None:
    gate = anyio.Event()

    async def unary(stream: Any) -> None:
        await stream.recv_message()
        await gate.wait()
        await stream.send_message(EchoReply())

    options = RPCOptions(max_concurrent_streams=1)
    async with linked(Echo(Unary=unary), server_options=options) as ours:
        for step in range(1, 12):
            gate = anyio.Event()

            async def release(gate: anyio.Event = gate) -> None:
                await anyio.wait_all_tasks_blocked()
                gate.set()

            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ours.stub.Unary, EchoRequest())
                    await anyio.wait_all_tasks_blocked()
                    tasks.start_soon(release)
                    with anyio.CancelScope() as scope:
                        await Stepped(ours.stub.Unary(EchoRequest()), scope, step, racing=racing)
            await ours.check_nothing_is_left()


@races
async def test_opening_a_channel_may_be_cancelled_at_every_step(racing: bool) -> None:
    transport = MemoryTransport()
    server = Server([Echo()])
    async with transport.listen() as listener, anyio.create_task_group() as tasks:
        await tasks.start(server.serve, listener)

        async def connect() -> Any:
            return await transport.connect()

        async def operation() -> None:
            async with open_channel(Channel(connect)) as channel:
                async with request(channel, "Unary") as stream:
                    await stream.send_message(EchoRequest())
                    await stream.recv_message()

        async def check() -> None:
            with anyio.fail_after(5):
                while server._connections:
                    await anyio.lowlevel.checkpoint()

        await sweep(operation, check, racing=racing)
        await server.stop(0)


@races
async def test_stopping_may_be_cancelled_at_every_step(link: str, racing: bool) -> None:
    async def never(stream: Any) -> None:
        await anyio.Event().wait()

    for step in range(1, 20):
        async with (
            linked(Echo(Unary=never), link=link) as ours,
            anyio.create_task_group() as tasks,
        ):

            async def call(ours: Linked = ours) -> None:
                with pytest.raises(GRPCError):
                    await ours.stub.Unary(EchoRequest())

            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                with anyio.CancelScope() as scope:
                    stepped = Stepped(ours.server.stop(0.001), scope, step, racing=racing)
                    await stepped
            assert not ours.server._connections
            done = stepped.done and not scope.cancel_called
        if done:
            break


@races
async def test_a_handler_may_be_cancelled_at_every_step(link: str, racing: bool) -> None:
    step = 0
    finished = False

    async def work(stream: Any) -> None:
        async for message in stream:
            await stream.send_message(EchoReply(data=message.data))

    async def bidi(stream: Any) -> None:
        nonlocal finished
        with anyio.CancelScope() as scope:
            stepped = Stepped(work(stream), scope, step, racing=racing)
            await stepped
        finished = stepped.done and not scope.cancel_called

    async with linked(Echo(Bidi=bidi), link=link) as ours:
        while not finished:
            step += 1
            assert step < _MOST_STEPS
            with anyio.fail_after(5):
                try:
                    async with request(ours.channel, "Bidi") as stream:
                        for _ in range(3):
                            await stream.send_message(EchoRequest(data=bytes(100_000)))
                            if await stream.recv_message() is None:
                                break
                        else:
                            await stream.end()
                            await stream.recv_message()
                            continue
                        await stream.cancel()
                except GRPCError:
                    pass
            await ours.check_nothing_is_left()
