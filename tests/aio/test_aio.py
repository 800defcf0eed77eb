"""Programs on asyncio that cannot use `async with`: any task, any loop of theirs, and none yet."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import HandshakeError, RPCPluginError, TransportError, plugin_client
from pyvider_rpcplugin.aio import exit_future, lifespan, shutdown_plugins
from tests.plugins import broken, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.process

UVLOOP = pytest.param(
    "uvloop",
    marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="no uvloop"),
)


@pytest.fixture(scope="module", autouse=True)
def _what_uvloop_opens_once_for_the_process() -> None:
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        loop = uvloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture(params=["asyncio", UVLOOP])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    if request.param == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


@pytest.fixture
def run(new_loop):
    """Run a coroutine function to its end, as `asyncio.run` does, in at most 15 s."""

    def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(asyncio.wait_for(main(), 15))

    return run


def is_running(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_was_made_before_any_loop_runs_on_one_loop_after_another(new_loop):
    client = plugin_client(echo())
    stub = client.stub(EchoStub)
    pids = []
    for _ in range(2):
        loop = new_loop()
        assert loop.run_until_complete(client.start()) is client
        pids.append(client.pid)
        reply = loop.run_until_complete(stub.Unary(EchoRequest(text="hello")))
        assert reply.text == "hello"
        loop.run_until_complete(client.stop())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        assert client.exit is not None
        assert client.exit.status == 0
    assert len(set(pids)) == 2


def test_start_in_one_task_and_stop_in_another(run):
    async def main():
        before = asyncio.all_tasks()
        client = plugin_client(echo())
        await asyncio.create_task(client.start())
        first = asyncio.create_task(client.stub(EchoStub).Unary(EchoRequest(text="task")))
        assert (await first).text == "task"
        stopped = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(client.stop())
        task.add_done_callback(lambda task: stopped.set_result(task.exception()))
        assert await stopped is None
        assert client.exited.is_set()
        assert asyncio.all_tasks() == before

    run(main)


def test_gather_timeouts_and_cancellation_end_one_call_alone(run):
    async def main():
        one, two = plugin_client(echo()), plugin_client(echo())
        assert await asyncio.gather(one.start(), two.start())
        stub = one.stub(EchoStub)
        other = asyncio.create_task(stub.Unary(EchoRequest(text="hang")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stub.Unary(EchoRequest(text="hang")), 0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stub.Unary(EchoRequest(text="hang"))
        assert (await stub.Unary(EchoRequest(text="still"))).text == "still"
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        replies = await asyncio.gather(
            stub.Unary(EchoRequest(text="a")),
            two.stub(EchoStub).Unary(EchoRequest(text="b")),
            stub.Unary(EchoRequest(text="hang"), timeout=0.05),
            return_exceptions=True,
        )
        texts = [reply.text for reply in replies[:2] if isinstance(reply, EchoReply)]
        assert texts == ["a", "b"]
        assert isinstance(replies[2], TimeoutError)
        assert isinstance(replies[2], GRPCError)
        assert replies[2].status is Status.DEADLINE_EXCEEDED
        await asyncio.gather(one.stop(), two.stop())

    run(main)


def test_a_cancelled_start_leaves_nothing(run):
    async def main():
        before = asyncio.all_tasks()
        client = plugin_client(broken("silent"))
        task = asyncio.create_task(client.start())
        while client.pid is None:  # noqa: ASYNC110 - nothing tells when it is there
            await asyncio.sleep(0)
        pid = client.pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(pid)
        client = plugin_client(broken("silent"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.start()
        await client.stop()
        assert asyncio.all_tasks() == before

    run(main)


def test_a_cancelled_stop_ends_the_plugin_first(run):
    async def main():
        client = plugin_client(echo())
        await client.start()
        pid = client.pid
        task = asyncio.create_task(client.stop())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(pid)
        assert client.exit is not None
        assert client.exit.status == 0

    run(main)


def test_a_failed_start_is_for_who_awaits_it_alone(run):
    reported: list[dict[str, object]] = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        task = asyncio.create_task(plugin_client(broken("exits")).start())
        with pytest.raises(HandshakeError):
            await task
        del task
        gc.collect()

    run(main)
    assert reported == []


def test_another_thread_starts_calls_and_stops(run):
    async def main():
        loop = asyncio.get_running_loop()
        client = plugin_client(echo())

        def use() -> str:
            asyncio.run_coroutine_threadsafe(client.start(), loop).result(60)
            call = client.stub(EchoStub).Unary(EchoRequest(text="thread"))
            text = asyncio.run_coroutine_threadsafe(call, loop).result(60).text
            asyncio.run_coroutine_threadsafe(client.stop(), loop).result(60)
            return text

        assert await asyncio.to_thread(use) == "thread"

    run(main)


def test_a_call_on_another_loop_is_an_error_and_no_hang(new_loop):
    client = plugin_client(echo())
    stub = client.stub(EchoStub)
    loop, other = new_loop(), new_loop()
    loop.run_until_complete(client.start())
    with pytest.raises(RPCPluginError, match="another event loop") as caught:
        other.run_until_complete(stub.Unary(EchoRequest()))
    assert "loop_scope" in (caught.value.hint or "")
    with pytest.raises(RPCPluginError, match="another event loop"):
        other.run_until_complete(client.stop())
    other.close()
    loop.run_until_complete(client.stop())
    loop.close()


# What a loop leaves that was closed too early, nobody can clear away.
FORGETFUL = """
import asyncio, os, sys, warnings
sys.path.insert(0, {root!r})
from pyvider_rpcplugin import plugin_client
from tests.plugins import echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

warnings.simplefilter("ignore")
client = plugin_client(echo())
loop = asyncio.new_event_loop()
loop.run_until_complete(client.start())
pid = client.pid
loop.close()

def is_running():
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

assert is_running()
warnings.simplefilter("always", ResourceWarning)
with warnings.catch_warnings(record=True) as caught:
    {then}
said = [str(w.message) for w in caught if "event loop was closed" in str(w.message)]
assert len(said) == 1, [str(w.message) for w in caught]
assert not is_running()
warnings.simplefilter("ignore")
"""

STOPPED_LATER = "asyncio.run(client.stop()); assert client.exit.status == -9"
STARTED_AGAIN = """
    async def again():
        await client.start()
        print((await client.stub(EchoStub).Unary(EchoRequest(text="x"))).text)
        await client.stop()
        assert client.exited.is_set()
    asyncio.run(again())
"""
FORGOTTEN = "import gc; del client; gc.collect()"


@pytest.mark.parametrize("then", [STOPPED_LATER, STARTED_AGAIN, FORGOTTEN])
def test_a_plugin_whose_loop_was_closed_is_ended_at_the_next_chance(then):
    program = FORGETFUL.format(root=str(Path(__file__).parents[2]), then=then)
    # The folder of the plugin's socket is left to the next host, which sees that nobody owns it.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "TMPDIR": folder},
        )
    assert done.returncode == 0, done.stderr


def test_shutdown_plugins_ends_all_of_a_loop_before_it_is_closed(new_loop):
    clients = [plugin_client(echo()) for _ in range(2)]
    loop = new_loop()
    for client in clients:
        loop.run_until_complete(client.start())
    pids = [client.pid for client in clients]
    loop.run_until_complete(shutdown_plugins())
    assert not any(map(is_running, pids))
    loop.run_until_complete(shutdown_plugins())
    loop.close()
    for client in clients:
        assert client.exit is not None
        assert client.exit.status == 0


def test_an_exit_future_says_how_the_plugin_ended(run):
    async def main():
        client = plugin_client(echo())
        with pytest.raises(RPCPluginError, match="no plugin"):
            await exit_future(client)
        await client.start()
        cancelled, ended = exit_future(client), exit_future(client)
        heard: list[Any] = []
        ended.add_done_callback(lambda future: heard.append(future.result()))
        assert cancelled.cancel()
        done, _ = await asyncio.wait([ended], timeout=0.01)
        assert not done
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        await asyncio.wait([ended], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        assert [exit_.status for exit_ in heard] == [-9]
        assert cancelled.cancelled()
        await client.stop()

    run(main)


def test_a_lifespan_starts_all_and_stops_all(run):
    async def main():
        life = lifespan(one=plugin_client(echo()), two=plugin_client(echo()))
        for _ in range(2):  # a test client of a framework comes more than once
            async with life(object()) as state:
                assert set(state) == {"one", "two"}
                for client in state.values():
                    await client.ping()
            assert not any(client.grpc_channel for client in state.values())

    run(main)


def test_a_lifespan_that_cannot_start_one_stops_the_others_and_says_why(run):
    async def main():
        good = plugin_client(echo())
        with pytest.raises(HandshakeError):
            async with lifespan(good=good, bad=plugin_client(broken("exits")))(None):
                pytest.fail("it started")
        assert good.grpc_channel is None
        bad = {name: plugin_client([f"/nothing/{name}"]) for name in "ab"}
        with pytest.raises((TransportError, ExceptionGroup)):
            async with lifespan(**bad)(None):
                pytest.fail("it started")
        # One that runs already is somebody else's.
        await good.start()
        with pytest.raises(RPCPluginError, match="running already"):
            async with lifespan(good=good)(None):
                pytest.fail("it started")
        await good.ping()
        await good.stop()

    run(main)


def test_a_cancelled_lifespan_stops_its_plugins(run):
    async def main():
        client = plugin_client(echo())
        entered = asyncio.Event()

        async def serve() -> None:
            async with lifespan(client=client)(None):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await entered.wait()
        pid = client.pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(pid)

    run(main)


def test_a_loop_in_another_thread_than_the_main_one(new_loop):
    """As a library does that keeps a loop of its own."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        client = plugin_client(echo())
        asyncio.run_coroutine_threadsafe(client.start(), loop).result(60)
        call = client.stub(EchoStub).Unary(EchoRequest(text="there"))
        assert asyncio.run_coroutine_threadsafe(call, loop).result(60).text == "there"
        asyncio.run_coroutine_threadsafe(shutdown_plugins(), loop).result(60)
        assert client.exited.is_set()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
