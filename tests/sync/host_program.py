"""A program without an event loop, which is interrupted, or forgets something; see test_interrupts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import RPCPluginError
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import broken, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

KEPT: list[object] = []
BACKEND: Any = sys.argv[2]


def channel_of(client) -> Any:
    return client._runtime.driver


def interrupt_when(ready):
    """Send this process SIGINT as soon as a condition holds."""

    def run():
        while not ready():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def expect_interrupt(function, thread):
    try:
        function()
    except KeyboardInterrupt:
        thread.join()
    else:
        sys.exit("no KeyboardInterrupt")


def start():
    client = plugin_client_sync(broken("silent"), backend=BACKEND)
    pids = []

    def ready() -> bool:
        if client.pid is not None:
            pids.append(client.pid)
        return bool(pids)

    expect_interrupt(client.start, interrupt_when(ready))
    assert not is_running(pids[0])
    client.stop()


def call():
    with plugin_client_sync(echo(), backend=BACKEND) as client:
        stub = client.stub(EchoStub)
        begun: list[bool] = []

        def hang():
            begun.append(True)
            stub.Unary(EchoRequest(text="hang"))

        expect_interrupt(hang, interrupt_when(lambda: begun))
        assert stub.Unary(EchoRequest(text="still")).text == "still"


def follow():
    """While another thread is the one that reads."""
    with plugin_client_sync(echo(), backend=BACKEND) as client:
        stub = client.stub(EchoStub)
        replies = stub.ServerStream(EchoRequest(text="hang", count=1))
        next(replies)

        def read():
            with contextlib.suppress(GRPCError):
                next(replies)

        reader = threading.Thread(target=read)
        reader.start()
        while channel_of(client)._one._leader is None:
            time.sleep(0.001)
        begun: list[bool] = []

        def hang():
            begun.append(True)
            stub.Unary(EchoRequest(text="hang"))

        expect_interrupt(hang, interrupt_when(lambda: begun))
        assert stub.Unary(EchoRequest(text="still")).text == "still"
        replies.close()
        reader.join()


def stream():
    with plugin_client_sync(echo(), backend=BACKEND) as client:
        stub = client.stub(EchoStub)
        taken = []

        def take():
            taken.extend(stub.ServerStream(EchoRequest(text="hang", count=5)))

        def iterate():
            for reply in stub.ServerStream(EchoRequest(text="hang", count=5)):
                taken.append(reply)  # noqa: PERF402 - one by one, as they come

        for function, count in ((take, 5), (iterate, 10)):
            expect_interrupt(function, interrupt_when(lambda n=count: len(taken) == n))
        assert len(taken) == 10
        assert stub.Unary(EchoRequest(text="still")).text == "still"


def stop():
    """A plugin that does not want to end: the first Ctrl-C waits for the ladder."""
    client = plugin_client_sync(echo(), backend=BACKEND)
    client.start()
    pid = client.pid
    replies = client.stub(EchoStub).ServerStream(EchoRequest(text="hang", count=1))
    next(replies)
    expect_interrupt(client.stop, interrupt_when(lambda: client._runtime is None))
    assert not is_running(pid)


def stop_twice():
    """A plugin that does not answer: the second Ctrl-C does not wait for all of the ladder."""
    client = plugin_client_sync(echo(), backend=BACKEND, grpc_grace_period=60)
    client.start()
    pid = client.pid
    os.kill(pid or 0, signal.SIGSTOP)

    def interrupt_twice():
        interrupt_when(lambda: client._runtime is None).join()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_twice)
    thread.start()
    expect_interrupt(client.stop, thread)
    assert not is_running(pid)


def storm():
    """Interrupts at any moment harm no other thread's calls, nor the connection."""
    with plugin_client_sync(echo(), backend=BACKEND) as client:
        stub = client.stub(EchoStub)
        stub.Unary(EchoRequest())
        connection = channel_of(client)._one
        over = threading.Event()
        failures = []
        calls = [0]

        def others():
            number = 0
            while not over.is_set():
                number += 1
                try:
                    text = str(number)
                    assert stub.Unary(EchoRequest(text=text), timeout=20).text == text
                    assert len(list(stub.ServerStream(EchoRequest(count=3), timeout=20))) == 3
                    calls[0] += 1
                except Exception as error:
                    failures.append(error)

        def interrupt():
            for _ in range(150):
                time.sleep(random.uniform(0.0005, 0.005))
                os.kill(os.getpid(), signal.SIGINT)
            over.set()

        threads = [threading.Thread(target=others) for _ in range(2)]
        threads.append(threading.Thread(target=interrupt))
        for thread in threads:
            thread.start()
        interrupted = 0
        while not over.is_set():
            try:
                while not over.is_set():
                    stub.Unary(EchoRequest(data=b"x" * 100))
                    for _ in stub.ServerStream(EchoRequest(count=5)):
                        pass
                    stub.ClientStream([EchoRequest()] * 3)
            except KeyboardInterrupt:
                interrupted += 1
        while any(thread.is_alive() for thread in threads):
            try:
                for thread in threads:
                    thread.join()
            except KeyboardInterrupt:
                interrupted += 1
        assert not failures, failures
        assert interrupted > 30, interrupted
        assert calls[0] > 0
        assert channel_of(client)._one is connection
        assert not connection.h2.streams, connection.h2.streams
        assert stub.Unary(EchoRequest(text="still")).text == "still"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def own_handler():
    """A handler of the program's own is called as ever, and is there again afterwards."""
    heard = []

    def handle(number, frame):
        heard.append(number)

    signal.signal(signal.SIGINT, handle)
    with plugin_client_sync(echo(), backend=BACKEND) as client:
        stub = client.stub(EchoStub)
        begun: list[bool] = []
        thread = interrupt_when(lambda: begun)
        begun.append(True)
        try:
            stub.Unary(EchoRequest(text="hang"), timeout=0.3)
        except TimeoutError:
            thread.join()
        assert heard == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is handle


def forgotten():
    client = plugin_client_sync(echo(), backend=BACKEND)
    KEPT.append(client)
    client.start()
    print(client.pid)  # noqa: T201 - for the test


def dropped():
    import gc

    client = plugin_client_sync(echo(), backend=BACKEND)
    client.start()
    pid = client.pid
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    assert ["forgotten" in str(warning.message) for warning in caught] == [True]
    while is_running(pid):
        time.sleep(0.01)


def forked():
    with plugin_client_sync(echo(), backend=BACKEND) as client:
        stub = client.stub(EchoStub)
        stub.Unary(EchoRequest())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that there are other threads
            child = os.fork()
        if not child:
            try:
                stub.Unary(EchoRequest())
            except RPCPluginError as error:
                if "fork" not in str(error):
                    os._exit(1)
            with plugin_client_sync(echo(), backend=BACKEND) as own:
                assert own.stub(EchoStub).Unary(EchoRequest(text="own")).text == "own"
            sys.exit(7)  # with all that blocks and the interpreter do at their end
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
        assert stub.Unary(EchoRequest(text="still")).text == "still"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
