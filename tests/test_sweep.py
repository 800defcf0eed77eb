"""What hosts and plugins do besides starting and stopping may be cancelled at every step.

Starts, stops, reloads and calls of stubs have their own: `test_cancellation.py` of `client`, `server`
and `rpc`. `SWEPT` says where each public operation is; a new one has to be put there.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import PluginHost, RPCPluginClient, context, plugin_client
from pyvider_rpcplugin.rpc import Server
from pyvider_rpcplugin.testing import connected
from tests.broker.test_broker import Pair, paired, reach
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo
from tests.rpc.test_cancellation import Stepped, races, sweep

ROOT = Path(__file__).parent
PAIRS = "test_what_a_pair_does_may_be_cancelled_at_every_step"
BROKERS = "test_what_brokers_do_may_be_cancelled_at_every_step"

# Where it is swept: a test of this file, or of another.
SWEPT = {
    "RPCPluginClient.start": "client/test_cancellation.py::test_starting_may_be_cancelled",
    "RPCPluginClient.stop": "client/test_cancellation.py::test_stopping_may_be_cancelled",
    "RPCPluginClient.close": "client/test_cancellation.py::test_stopping_may_be_cancelled",
    "RPCPluginClient.reload": "client/test_cancellation.py::test_reloading_may_be_cancelled",
    "RPCPluginClient.detach": "client/test_cancellation.py::test_detaching_may_be_cancelled",
    "RPCPluginClient.check": PAIRS,
    "RPCPluginClient.describe": PAIRS,
    "RPCPluginClient.ping": PAIRS,
    "RPCPluginClient.wait": PAIRS,
    "RPCPluginClient.events": "test_reading_events_may_be_cancelled_and_none_is_lost",
    "PluginHost.start": "test_starting_in_a_host_may_be_cancelled_at_every_step",
    "PluginHost.stop": "test_starting_in_a_host_may_be_cancelled_at_every_step",
    # At one point: each step would take an environment of its own.
    "PluginProgram.prepare": "discovery/test_environments.py::test_nothing_is_left_of_the_making",
    "RPCPluginServer.serve": "server/test_cancellation.py::test_serving_may_be_cancelled",
    "RPCPluginServer.stop": "server/test_cancellation.py::test_stopping_may_be_cancelled",
    "Broker.accept": BROKERS,
    "Broker.accept_and_serve": BROKERS,
    "Broker.start_serving": BROKERS,
    "Broker.serve": BROKERS,
    "Broker.dial": BROKERS,
    "connected": PAIRS,
    "ResultStream.aclose": PAIRS,
}
# What the engine runs, and what is no operation of a program's.
INTERNAL = {"run", "keep_conversation", "add_to_server", "get_grpc_descriptors", "listen"}
INTERNAL |= {"wait_connection", "__aenter__", "__anext__"}


def is_operation(function: Any) -> bool:
    function = inspect.unwrap(function) if callable(function) else function
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    given = str(getattr(function, "__annotations__", {}).get("return", ""))
    return any(word in given for word in ("Operation", "ContextManager", "PluginEvents"))


def public_operations() -> set[str]:
    found = set()
    for module in ("", ".services.broker", ".protocol.typed"):
        names = importlib.import_module(f"pyvider_rpcplugin{module}")
        for name in (*names.__all__, *(["Broker"] if module == ".services.broker" else [])):
            one = getattr(names, name)
            if not inspect.isclass(one) or name in {"GrpcChannelType", "Peer"}:
                continue
            for base in one.__mro__:
                if base.__module__.startswith("pyvider_rpcplugin"):
                    found |= {
                        f"{name}.{key}"
                        for key, value in vars(base).items()
                        if not key.startswith("_") and is_operation(value) and key not in INTERNAL
                    }
    return found


def test_every_public_operation_is_swept() -> None:
    assert public_operations() - set(SWEPT) == {"Broker.stop"}
    here = set(globals())
    for place in SWEPT.values():
        path, _, start = place.rpartition("::")
        if path:
            assert f"async def {start}" in (ROOT / path).read_text(encoding="utf-8"), place
        else:
            assert start in here, place


class StoreAPI:
    async def get(self, key: str) -> str:
        return f"value of {key}"


class Board:
    async def add(self, one: int, other: int) -> int:
        return one + other

    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    async def total(self, numbers: AsyncIterator[int]) -> int:
        total = 0
        async for number in numbers:
            total += number
        return total

    async def each(self, tell: Callable[[int], Awaitable[int]]) -> int:
        return sum([await tell(number) for number in range(3)])

    async def ask(self, key: str) -> str:
        return await context().host(StoreAPI).get(key)


async def _unary(client: RPCPluginClient) -> None:
    assert await client.proxy(Board).add(1, 2) == 3


async def _streamed(client: RPCPluginClient) -> None:
    assert [number async for number in client.proxy(Board).count(5)] == [0, 1, 2, 3, 4]


async def _left_early(client: RPCPluginClient) -> None:
    results: Any = client.proxy(Board).count(1000)
    async with results:
        async for number in results:
            if number == 3:
                break


async def _streaming(client: RPCPluginClient) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(4):
            yield number

    assert await client.proxy(Board).total(numbers()) == 6


async def _lent(client: RPCPluginClient) -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert await client.proxy(Board).each(double) == 6


async def _called_back(client: RPCPluginClient) -> None:
    assert await client.proxy(Board).ask("x") == "value of x"


async def _ping(client: RPCPluginClient) -> None:
    await client.ping()


async def _describe(client: RPCPluginClient) -> None:
    assert "Board" in await client.describe()


async def _check(client: RPCPluginClient) -> None:
    await client.check(Board)


async def _wait(client: RPCPluginClient) -> None:
    with anyio.move_on_after(0.001):
        await client.wait()


async def _pair(_: RPCPluginClient) -> None:
    async with connected(Board()) as another:
        await _unary(another)


PAIR_OPERATIONS = {
    "unary": _unary,
    "streamed": _streamed,
    "left early": _left_early,
    "streaming": _streaming,
    "lent": _lent,
    "called back": _called_back,
    "ping": _ping,
    "describe": _describe,
    "check": _check,
    "wait": _wait,
    "pair": _pair,
}


@races
@pytest.mark.parametrize("name", PAIR_OPERATIONS)
async def test_what_a_pair_does_may_be_cancelled_at_every_step(name: str, racing: bool) -> None:
    operation = PAIR_OPERATIONS[name]
    with anyio.fail_after(20):
        async with connected(Board(), services=[StoreAPI()]) as client:
            await _called_back(client)

            async def check() -> None:
                await _called_back(client)
                await _unary(client)

            await sweep(lambda: operation(client), check, racing=racing)


async def _serve(pair: Pair) -> None:
    async with pair.host.serve(Echo()) as number:
        assert await reach(pair.plugin, number) == "x"


async def _back(pair: Pair) -> None:
    async with pair.plugin.serve(Echo()) as number:
        assert await reach(pair.host, number) == "x"


async def _accept(pair: Pair) -> None:
    number = pair.host.next_id()
    async with pair.host.accept(number) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(Server([Echo()]).serve, listener)
        assert await reach(pair.plugin, number) == "x"
        tasks.cancel_scope.cancel()


async def _accept_and_serve(pair: Pair) -> None:
    """Serves until it is cancelled, which happens as soon as it does."""

    class Started:
        def started(self, _: object = None) -> None:
            scope.cancel()

    with anyio.CancelScope() as scope:
        await pair.host.accept_and_serve(pair.host.next_id(), Echo(), task_status=Started())
    assert scope.cancelled_caught


async def _start_serving(pair: Pair) -> None:
    number = await pair.host.start_serving(Echo())
    assert await reach(pair.plugin, number) == "x"


@races
@pytest.mark.parametrize("operation", [_serve, _back, _accept, _accept_and_serve, _start_serving])
async def test_what_brokers_do_may_be_cancelled_at_every_step(
    operation: Callable[[Pair], Any], racing: bool
) -> None:
    with anyio.fail_after(20):
        async with paired() as pair:
            await sweep(lambda: operation(pair), lambda: operation(pair), racing=racing)


@pytest.mark.process
@races
async def test_reading_events_may_be_cancelled_and_none_is_lost(racing: bool) -> None:
    with anyio.fail_after(20):
        client = plugin_client(echo(), lazy=True)
        async with client, client.events() as events:
            seen: list[str] = []
            began = False

            async def read() -> None:
                nonlocal began
                if not began:
                    began = True
                    await client.stub(EchoStub).Unary(EchoRequest(text="x"))
                seen.append((await anext(events)).kind)

            for step in range(1, 40):
                with anyio.CancelScope() as scope:
                    stepped = Stepped(read(), scope, step, racing=racing)
                    await stepped
                if seen:
                    break
            assert seen == ["started"]


@pytest.mark.process
@pytest.mark.thorough
@pytest.mark.timeout(120)
@races
async def test_starting_in_a_host_may_be_cancelled_at_every_step(racing: bool) -> None:
    step, done = 1, False
    async with PluginHost() as host:
        while not done:
            with anyio.fail_after(30):

                async def operation() -> None:
                    client = await host.start(echo())
                    assert client.pid is not None
                    await host.stop()

                with anyio.CancelScope() as scope:
                    stepped = Stepped(operation(), scope, step, racing=racing)
                    await stepped
                done = stepped.done and not scope.cancel_called
                await host.stop()
                assert not host.clients
            step += 1 + step // 8
