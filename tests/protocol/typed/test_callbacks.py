"""A plugin calls its host: services that it offers, functions and iterators that are lent."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import (
    ConfigError,
    ProtocolError,
    RPCPluginError,
    context,
    plugin_client,
    plugin_server,
    raises,
)
from pyvider_rpcplugin.client.supervision import PoolPolicy, RestartPolicy
from pyvider_rpcplugin.protocol.typed import RemoteError
from pyvider_rpcplugin.rpc import ConnectionLost, Server
from tests.plugins.calling_plugin import Calling, Stopped, StoreAPI
from tests.protocol.typed.support import called
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

PLUGIN = str(Path(__file__).parents[2] / "plugins" / "calling_plugin.py")


@raises(Stopped)
class Store:
    def __init__(self, **values: str) -> None:
        self.values = values

    async def get(self, key: str, default: str = "") -> str:
        return self.values.get(key, default)

    async def put(self, key: str, value: str) -> None:
        self.values[key] = value

    async def every_key(self) -> AsyncIterator[str]:
        for key in self.values:
            yield key

    async def watch(self, on_change: Callable[[str], Awaitable[bool]]) -> int:
        count = 1
        while await on_change(f"change {count}"):
            count += 1
        return count

    async def pick(self, items: AsyncIterator[int] | None = None) -> int:
        if items is None:
            return -1
        async for item in items:
            if item == 2:
                return item
        return -2


@asynccontextmanager
async def plugin(backend: str = "asyncio", **options: Any) -> AsyncIterator[Any]:
    with anyio.fail_after(10):
        async with plugin_client([sys.executable, PLUGIN, backend], **options) as client:
            yield client.proxy(Calling)


WAYS: dict[str, dict[str, Any]] = {
    "unix": {},
    "tcp": {"env": {"PLUGIN_SERVER_TRANSPORTS": "tcp"}},
    "multiplexed": {"multiplex_grpc": True},
    "plain": {"auto_mtls": False},
    "plain and multiplexed": {"auto_mtls": False, "multiplex_grpc": True},
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_plugin_calls_what_its_host_offers(way: str, backend: str) -> None:
    store = Store(a="1")
    async with plugin(backend, services=[store], **WAYS[way]) as calling:
        assert await calling.copy("a", "b") == "1"
        assert store.values == {"a": "1", "b": "11"}
        assert await calling.keys() == ["a", "b"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_functions_are_lent_in_both_directions(backend: str) -> None:
    async def progress(item: int, what: str) -> str:
        seen.append((item, what))
        return f"heard {item}"

    seen: list[tuple[int, str]] = []
    async with plugin(backend, services=[Store()]) as calling:
        assert await calling.each([1, 2], progress) == "heard 2"
        assert seen == [(1, "done"), (2, "done")]
        assert await calling.watch(3) == ["change 1", "change 2", "change 3"]
        assert await calling.lend_items(10) == 2
        assert await calling.lend_items(1) == -2


async def numbers(count: int) -> AsyncIterator[int]:
    for n in range(count):
        yield n


async def names(*given: str) -> AsyncIterator[str]:
    for name in given:
        yield name


async def test_without_services_of_the_host_functions_are_lent_as_well() -> None:
    async def report() -> None:
        reports.append(1)

    async def fewer(n: int) -> bool:
        return n < 4

    reports: list[int] = []
    async with plugin() as calling:
        assert await calling.report(report) is True
        assert await calling.report(None) is False
        assert await calling.report() is False
        assert reports == [1]
        assert await calling.collect(names("a"), numbers(3)) == ["a", 0, 1, 2]
        assert await calling.collect(numbers=numbers(9), names=names("b"), first=3) == ["b", 0, 1]
        assert [n async for n in calling.count(fewer, 2)] == [2, 3]


async def test_what_a_lent_function_raises_is_raised_where_it_is_called() -> None:
    async def stop(item: int, what: str) -> str:
        raise Stopped(item)

    async def fail(item: int, what: str) -> str:
        raise ValueError("bad")

    async def odd(item: int, what: str) -> Any:
        return 7

    async with plugin() as calling:
        with pytest.raises(Stopped) as stopped:
            await calling.each([1], stop)
        assert stopped.value.args == (1,)
        with pytest.raises(RemoteError, match="RemoteError: UNKNOWN: ValueError: bad") as caught:
            await calling.each([1], fail)
        assert "calling_plugin.py" in caught.value.traceback
        with pytest.raises(GRPCError, match=r"what progress\(\) of Calling\.each\(\) returned"):
            await calling.each([1], odd)
        with pytest.raises(TypeError, match="'progress' is a function, not 7"):
            await calling.each([1], 7)
        with pytest.raises(TypeError, match="'progress' is a function, not None"):
            await calling.each([1], None)
        with pytest.raises(TypeError, match="missing a required argument: 'progress'"):
            await calling.each([1])
        with pytest.raises(GRPCError, match=r"the argument 'items' of .* cannot be sent"):
            await calling.each([object()], stop)


async def test_what_was_lent_ends_with_its_call() -> None:
    async def first() -> int:
        return 1

    async with plugin() as calling:
        assert await calling.keep(first) == 1
        with pytest.raises(GRPCError, match="lent to a call that has ended") as caught:
            await calling.keep(first)
        assert caught.value.status is Status.NOT_FOUND


async def test_a_call_that_is_cancelled_lends_no_more() -> None:
    async def until() -> None:
        called.set()
        try:
            await anyio.Event().wait()
        finally:
            ended.set()

    called, ended = anyio.Event(), anyio.Event()
    async with plugin() as calling:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calling.wait, until)
            await called.wait()
            tasks.cancel_scope.cancel()
        await ended.wait()
        assert await calling.report() is False


async def test_many_functions_are_called_at_the_same_time() -> None:
    async def call(number: int) -> None:
        async def progress(item: int, what: str) -> str:
            waiting.append(number)
            if len(waiting) == 50:
                full.set()
            await full.wait()
            return str(number)

        answers[number] = await calling.each([number], progress)

    waiting: list[int] = []
    full = anyio.Event()
    answers: dict[int, str] = {}
    async with plugin() as calling:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(call, number)
    assert answers == {number: str(number) for number in range(50)}


async def test_a_host_that_offers_nothing_is_an_error_of_the_call(monkeypatch: Any) -> None:
    from pyvider_rpcplugin.server import _back

    monkeypatch.setattr(_back, "_PATIENCE", 0.01)
    host: Any = _back.HostPeer(None, Server())  # type: ignore[arg-type]  # it needs none for that
    store = host.proxy(StoreAPI, service_name=None, timeout=None, metadata=None)
    with anyio.fail_after(5):
        with pytest.raises(RPCPluginError, match=r"offered nothing to call within 0\.01 s"):
            await store.get("a")
        with pytest.raises(RPCPluginError, match="offered nothing"):
            await anext(store.every_key())
        with pytest.raises(RPCPluginError, match="offered nothing"):
            await store.pick(numbers(1))


async def test_only_a_handler_of_a_plugin_has_a_host() -> None:
    class Asking:
        async def ask(self) -> None:
            context().host(StoreAPI)

    async with called(Asking()) as asking:
        with pytest.raises(RemoteError, match="there is no host to call"):
            await asking.ask()


async def test_an_offer_of_generated_code_works_as_well() -> None:
    from tests.rpc.support import Echo

    async with plugin(services=[Store(a="1"), Echo()]) as calling:
        assert await calling.keys() == ["a"]


async def test_what_cannot_be_offered_is_said_at_the_start() -> None:
    class Nothing:
        pass

    command = [sys.executable, PLUGIN, "asyncio"]
    with pytest.raises(ProtocolError, match="nothing to serve for 'Nothing'"):
        await plugin_client(command, services=[Nothing()]).start()
    with pytest.raises(ConfigError, match="takes a list of objects"):
        await plugin_client(command, services=Store()).start()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="attached to has no connection back"):
        await plugin_client(address="127.0.0.1:1", services=[Store()]).start()


async def test_where_nobody_can_call_back_nothing_is_lent() -> None:
    class Lending:
        async def take(self, function: Callable[[], Awaitable[None]]) -> None: ...

    async def function() -> None: ...

    async with called(Lending()) as proxy:
        with pytest.raises(ProtocolError, match="only between a plugin and the host"):
            await proxy.take(function)


async def test_a_stopped_client_lends_nothing() -> None:
    async def report() -> None: ...

    client = plugin_client([sys.executable, PLUGIN, "asyncio"])
    calling = client.proxy(Calling)
    with anyio.fail_after(10):
        async with client:
            assert await calling.report(report)
        with pytest.raises(RPCPluginError, match="not running"):
            await calling.report(report)
        async with client:
            assert await calling.report(report)


KEPT: dict[str, dict[str, Any]] = {
    "restarted": {"restart": RestartPolicy(initial_backoff=0.0)},
    "started when it is called": {"lazy": True},
    "several": {"pool": PoolPolicy(size=2)},
}


@pytest.mark.parametrize("way", KEPT)
async def test_plugins_that_are_kept_running_call_back_as_well(way: str) -> None:
    async def report() -> None:
        reports.append(1)

    reports: list[int] = []
    store = Store(a="1")
    async with plugin(services=[store], **KEPT[way]) as calling:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(calling.report, report)
                tasks.start_soon(calling.copy, "a", "b")
        assert reports == [1] * 4
        assert store.values["b"] == "11"
        if way == "restarted":
            os.kill(await calling.pid(), signal.SIGKILL)
            while True:
                with contextlib.suppress(ConnectionLost):
                    assert await calling.report(report)
                    break
            assert await calling.copy("b", "c") == "11"


async def test_a_server_that_is_attached_to_cannot_call_back() -> None:
    async def report() -> None: ...

    server = plugin_server(handler=Calling(), standalone=True, auto_mtls=False)
    with anyio.fail_after(10):
        async with server.serve() as address:
            async with plugin_client(address=address, auto_mtls=False) as client:
                calling = client.proxy(Calling)
                assert await calling.report() is False
                with pytest.raises(GRPCError, match="only between a plugin and the host") as e:
                    await calling.report(report)
                assert e.value.status is Status.FAILED_PRECONDITION


async def test_a_handler_of_generated_code_calls_its_host_too(tmp_path: Path) -> None:
    program = tmp_path / "plugin.py"
    program.write_text(f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pyvider_rpcplugin import context, plugin_server
from tests.plugins.calling_plugin import StoreAPI
from tests.protos.echo_grpc import EchoBase
from tests.protos.echo_pb2 import EchoReply
class Echo(EchoBase):
    async def Unary(self, stream):
        request = await stream.recv_message()
        await stream.send_message(EchoReply(text=await context().host(StoreAPI).get(request.text)))
    ServerStream = ClientStream = Bidi = Unary
plugin_server(handler=Echo()).run()
""")
    with anyio.fail_after(10):
        async with plugin_client([sys.executable, str(program)], services=[Store(a="1")]) as client:
            reply = await client.stub(EchoStub).Unary(EchoRequest(text="a"))
            assert reply.text == "1"
