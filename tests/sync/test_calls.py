"""Calls from programs without an event loop: all kinds, from one thread and from many."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import ConfigError, HandshakeError, RPCPluginError, TransportError
from pyvider_rpcplugin.rpc import ConnectionLost, DeadlineExceeded
from pyvider_rpcplugin.sync import SyncPluginClient, plugin_client_sync
from tests.plugins import broken, echo, until_listening
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    return request.param


@pytest.fixture
def client(backend):
    with plugin_client_sync(echo("--loop", backend), backend=backend) as client:
        yield client


@pytest.fixture
def stub(client):
    return client.stub(EchoStub)


@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("auto_mtls", [True, False])
def test_all_kinds_of_methods_are_plain_functions(backend, transport, auto_mtls):
    command = echo("--loop", backend, "--transport", transport)
    with plugin_client_sync(command, backend=backend, auto_mtls=auto_mtls) as client:
        stub = client.stub(EchoStub)
        client.ping()
        assert stub.Unary(EchoRequest(text="hello")).text == "hello"
        replies = stub.ServerStream(EchoRequest(count=3))
        assert [reply.index for reply in replies] == [0, 1, 2]
        assert list(replies) == []
        assert stub.ClientStream(EchoRequest() for _ in range(4)).index == 4
        assert stub.ClientStream([]).index == 0
        replies = stub.Bidi(EchoRequest(text=text) for text in "abc")
        assert [reply.text for reply in replies] == ["a", "b", "c"]
        assert list(stub.Bidi([])) == []
        assert client.pid is not None
        assert client.negotiated_version == 1
        assert client.exit is None
    assert client.exit is not None
    assert client.exit.status == 0


def test_all_goes_over_one_connection_where_the_plugin_shares_it(backend):
    with plugin_client_sync(echo(), backend=backend, multiplex_grpc=True) as client:
        stub = client.stub(EchoStub)
        client.ping(timeout=5)
        assert stub.Unary(EchoRequest(text="hello"), timeout=60).text == "hello"
        assert len(list(stub.ServerStream(EchoRequest(count=3)))) == 3
        assert stub.ClientStream([EchoRequest()] * 4).index == 4
        assert len(list(stub.Bidi([EchoRequest()] * 3))) == 3
        with pytest.raises(DeadlineExceeded):
            stub.Unary(EchoRequest(text="hang"), timeout=0.05)
        replies = stub.ServerStream(EchoRequest(text="hang", count=1))
        next(replies)
        del replies
        gc.collect()
        assert stub.Unary(EchoRequest(text="still")).text == "still"


def test_a_call_by_hand_is_a_block(stub):
    with stub.Bidi.open(metadata={"key": "value"}) as call:
        for text in "ab":
            call.send_message(EchoRequest(text=text))
            reply = call.recv_message()
            assert reply is not None
            assert reply.text == text
            assert call.initial_metadata is not None
        call.end()
        assert call.recv_message() is None
        call.recv_trailing_metadata()
        assert call.trailing_metadata is not None
    with pytest.raises(ZeroDivisionError), stub.Bidi.open() as call:
        call.send_message(EchoRequest(text="hang"))
        raise ZeroDivisionError
    with stub.Bidi.open() as call:
        call.send_request()
        call.cancel()


def test_requests_may_depend_on_replies(stub):
    heard = threading.Semaphore(0)

    def requests():
        for number in range(50):
            yield EchoRequest(text=str(number))
            assert heard.acquire(timeout=60)

    texts = []
    for reply in stub.Bidi(requests()):
        texts.append(reply.text)
        heard.release()
    assert texts == [str(number) for number in range(50)]


def test_what_the_requests_raise_ends_the_call_and_reaches_its_caller(stub):
    def requests():
        yield EchoRequest(text="a")
        raise ZeroDivisionError

    replies = stub.Bidi(requests())
    with pytest.raises(ZeroDivisionError):
        list(replies)
    with pytest.raises(ZeroDivisionError):
        stub.ClientStream(requests())
    assert stub.Unary(EchoRequest(text="still")).text == "still"


def test_a_deadline_ends_every_kind_of_call(stub):
    for _ in range(3):
        with pytest.raises(DeadlineExceeded) as caught:
            stub.Unary(EchoRequest(text="hang"), timeout=0.05)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert isinstance(caught.value, TimeoutError)
    replies = stub.ServerStream(EchoRequest(text="hang", count=2), timeout=1)
    assert next(replies).index == 0
    assert next(replies).index == 1
    with pytest.raises(DeadlineExceeded):
        next(replies)
    never = threading.Event()
    with pytest.raises(DeadlineExceeded):
        list(stub.Bidi(iter(lambda: never.wait(10), None), timeout=0.05))
    never.set()
    with pytest.raises(DeadlineExceeded):
        stub.Unary(EchoRequest(), timeout=0)
    assert stub.Unary(EchoRequest(text="still"), timeout=60).text == "still"


def test_a_stream_that_is_left_is_ended_on_the_other_side_too(client, stub):
    endless = EchoRequest(data=b"x" * 1000, count=1 << 40)
    replies = stub.ServerStream(endless)
    assert next(replies).index == 0
    replies.close()
    assert list(replies) == []
    with stub.ServerStream(endless) as replies:
        next(replies)
    replies = stub.ServerStream(endless)
    next(replies)
    del replies
    gc.collect()
    for _ in range(20):
        assert stub.Unary(EchoRequest(text="still")).text == "still"


def test_the_error_of_a_method_is_raised_as_it_was_meant(client):
    class NoSuchStub(EchoStub):
        def __init__(self, channel):
            super().__init__(channel)
            for method in vars(self).values():
                method.name += "Nothing"

    stub = client.stub(NoSuchStub)
    calls = [
        lambda: stub.Unary(EchoRequest()),
        lambda: list(stub.ServerStream(EchoRequest())),
        lambda: stub.ClientStream(EchoRequest() for _ in iter(int, 1)),
        lambda: list(stub.Bidi(EchoRequest() for _ in iter(int, 1))),
    ]
    for call in calls:
        with pytest.raises(GRPCError) as caught:
            call()
        assert caught.value.status is Status.UNIMPLEMENTED


def test_large_messages_both_ways_at_the_same_time(stub):
    data = bytes(range(256)) * (12 << 12)
    reply = stub.Unary(EchoRequest(data=data))
    assert reply.data == data
    replies = stub.Bidi(EchoRequest(data=data[: 3 << 20]) for _ in range(8))
    assert [len(reply.data) for reply in replies] == [3 << 20] * 8
    # More than fits into all buffers, and nobody takes the replies until all is sent.
    with stub.ClientStream.open() as call:
        for _ in range(10):
            call.send_message(EchoRequest(data=data))
        call.end()
        reply = call.recv_message()
        assert reply is not None
        assert reply.index == 10


def test_many_threads_make_many_calls_on_one_connection(client, stub):
    def work(number: int) -> int:
        for turn in range(40):
            text = f"{number}-{turn}"
            assert stub.Unary(EchoRequest(text=text)).text == text
            if turn % 10 == 0:
                assert len(list(stub.ServerStream(EchoRequest(count=20)))) == 20
                assert stub.ClientStream([EchoRequest()] * 5).index == 5
            if turn % 20 == 0:
                data = bytes(100_000)
                assert stub.Unary(EchoRequest(data=data)).data == data
                with pytest.raises(DeadlineExceeded):
                    stub.Unary(EchoRequest(text="hang"), timeout=0.01)
        return number

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(work, range(32))) == list(range(32))


def test_a_thread_that_waits_long_is_no_hindrance_to_others(stub):
    """Whoever waits first reads for all, whatever its own call does."""
    results = []

    def hang():
        with pytest.raises(DeadlineExceeded) as caught:
            stub.Unary(EchoRequest(text="hang"), timeout=0.5)
        results.append(caught.value)

    threads = [threading.Thread(target=hang) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        assert stub.Unary(EchoRequest(text=str(number)), timeout=60).text == str(number)
    for thread in threads:
        thread.join()
    assert len(results) == 4


def test_a_call_is_cancelled_from_another_thread(stub):
    with stub.ServerStream.open() as call:
        call.send_message(EchoRequest(text="hang", count=1), end=True)
        assert call.recv_message() is not None
        timer = threading.Timer(0.05, call.cancel)
        timer.start()
        with pytest.raises(GRPCError) as caught:
            call.recv_message()
        assert caught.value.status is Status.CANCELLED
        timer.join()
    assert stub.Unary(EchoRequest(text="still")).text == "still"


def test_a_plugin_that_dies_fails_all_calls_at_once_and_says_how(backend):
    with plugin_client_sync(echo(), backend=backend) as client:
        stub = client.stub(EchoStub)
        errors = []

        def hang():
            with pytest.raises(ConnectionLost) as caught:
                stub.Unary(EchoRequest(text="hang"))
            errors.append(caught.value)

        threads = [threading.Thread(target=hang) for _ in range(8)]
        for thread in threads:
            thread.start()
        stream = stub.ServerStream(EchoRequest(text="hang", count=1))
        next(stream)
        with pytest.raises(ConnectionLost) as caught:
            stub.Unary(EchoRequest(text="kill"))
        for thread in threads:
            thread.join(60)
        errors.append(caught.value)
        with pytest.raises(ConnectionLost) as caught:
            next(stream)
        errors.append(caught.value)
        with pytest.raises(ConnectionLost) as caught:
            stub.Unary(EchoRequest())
        errors.append(caught.value)
        assert [error.exit_status for error in errors] == [-9] * 11
        assert errors[0].stderr_tail[-1] == "last words"
        ended = client.wait_exited(60)
        assert ended is not None
        assert ended.status == -9
    with pytest.raises(RPCPluginError, match="not running"):
        stub.Unary(EchoRequest())


def test_a_plugin_that_dies_between_calls(client, stub):
    assert stub.Unary(EchoRequest(text="x")).text == "x"
    with pytest.raises(TimeoutError):
        client.wait_exited(0.01)
    os.kill(client.pid, signal.SIGKILL)
    client.wait_exited(60)
    with pytest.raises(ConnectionLost) as caught:
        stub.Unary(EchoRequest())
    assert caught.value.exit_status == -9


def test_a_quiet_connection_is_watched_over(client, stub):
    """PING is answered, and more: so that the next call finds the connection as it should be."""
    assert stub.Unary(EchoRequest(text="x")).text == "x"
    channel = client._runtime.driver
    [connection] = channel._all
    limit = time.monotonic() + 60
    while connection._watching is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    for number in range(50):
        assert stub.Unary(EchoRequest(text=str(number))).text == str(number)
    while connection._watching is None:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_client_starts_again_and_its_stubs_live_on(backend):
    client = plugin_client_sync(echo(), backend=backend)
    stub = client.stub(EchoStub)
    with pytest.raises(RPCPluginError, match="not running"):
        stub.Unary(EchoRequest())
    client.stop()
    assert client.wait_exited() is None
    pids = set()
    for _ in range(2):
        assert client.start() is client
        with pytest.raises(RPCPluginError, match="running already"):
            client.start()
        pids.add(stub.Unary(EchoRequest(text="pid")).text)
        client.stop()
        client.close()
    assert len(pids) == 2


def test_several_clients_at_the_same_time(backend):
    clients = [plugin_client_sync(echo(), backend=backend) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(SyncPluginClient.start, clients))
        texts = [client.stub(EchoStub).Unary(EchoRequest(text="pid")).text for client in clients]
        assert len(set(texts)) == 3
        clients[1].stop()
        clients[0].ping()
        list(pool.map(SyncPluginClient.stop, clients))


def test_what_cannot_be_started_is_the_same_error_as_with_an_event_loop(backend):
    for command, expected in (
        (["/nothing"], TransportError),
        (broken("exits"), HandshakeError),
        ([], ConfigError),
    ):
        client = plugin_client_sync(command, backend=backend, client_retry_enabled=False)
        with pytest.raises(expected):
            client.start()
        client.stop()
        assert repr(client).endswith("not running>")
    with pytest.raises(ConfigError, match="'asyncio' or 'trio'"):
        plugin_client_sync(echo(), backend="curio")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nonsense"):
        plugin_client_sync(echo(), nonsense=1)


def test_stop_ends_calls_that_run(client, stub):
    errors = []
    begun = threading.Event()

    def hang():
        replies = stub.ServerStream(EchoRequest(text="hang", count=1))
        next(replies)
        begun.set()
        with pytest.raises(GRPCError) as caught:
            next(replies)
        errors.append(caught.value.status)

    thread = threading.Thread(target=hang)
    thread.start()
    assert begun.wait(60)
    client.stop()
    thread.join(60)
    assert errors == [Status.CANCELLED]


def test_a_server_that_is_attached_to(backend, tmp_path):
    path = tmp_path / "s"
    words = echo("--standalone", "--transport", "unix", "--path", str(path))
    with subprocess.Popen(words) as server:
        try:
            client = plugin_client_sync(address=str(path), backend=backend, auto_mtls=False)
            until_listening(path)
            with client:
                assert client.stub(EchoStub).Unary(EchoRequest(text="hello")).text == "hello"
                client.ping()
                assert client.pid is None
        finally:
            server.terminate()


def test_a_call_within_a_call_of_the_same_thread_is_an_error_and_no_hang(client, stub):
    async def nested():
        stub.Unary(EchoRequest())

    with pytest.raises(RuntimeError, match="within a call"):
        client._runtime.driver.drive(nested())
    assert stub.Unary(EchoRequest(text="still")).text == "still"
