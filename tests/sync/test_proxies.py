"""Typed services, called by programs without an event loop."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import ProtocolError
from pyvider_rpcplugin.rpc import DeadlineExceeded
from pyvider_rpcplugin.sync import plugin_client_sync
from tests.plugins import FOLDER
from tests.plugins.counter_plugin import Counter

pytestmark = pytest.mark.process


@pytest.fixture(params=["own connection", "shared connection"])
def client(request):
    shared = request.param == "shared connection"
    command = [sys.executable, str(FOLDER / "counter_plugin.py"), "trio"]
    with plugin_client_sync(command, multiplex_grpc=shared) as client:
        yield client


def test_methods_are_plain_functions_and_iterators(client):
    counter = client.proxy(Counter)
    assert counter.add(1) == 1
    assert counter.add(1, to=2) == 3
    assert list(counter.count(3)) == [3, 2, 1]
    assert counter.total(range(5), factor=10) == 100
    assert counter.total([]) == 0
    assert list(counter.doubled(iter([1, 2, 3]))) == [2, 4, 6]
    assert counter.add.__name__ == "add"


def test_an_interface_of_another_name_finds_its_service(client):
    class Adder(Protocol):
        async def add(self, number: int, *, to: int = 0) -> int: ...

        async def total(self, numbers: AsyncIterator[int], *, factor: int = 1) -> int: ...

    assert client.proxy(Adder).add(1) == 1
    assert client.proxy(Adder).total([1, 2]) == 3

    class Stranger(Protocol):
        async def nothing(self) -> None: ...

        def items(self) -> AsyncIterator[int]: ...

    stranger = client.proxy(Stranger, service_name="Stranger")
    for call in (stranger.nothing, lambda: list(stranger.items())):
        with pytest.raises(GRPCError, match="Stranger") as caught:
            call()
        assert caught.value.status is Status.UNIMPLEMENTED


def test_what_goes_wrong_is_raised_as_with_an_event_loop(client):
    counter = client.proxy(Counter, timeout=60)
    with pytest.raises(GRPCError) as caught:
        counter.fail()
    assert caught.value.status is Status.UNKNOWN
    assert "LookupError" in str(caught.value.message)
    with pytest.raises(GRPCError) as caught:
        counter.add("one")
    assert caught.value.status is Status.INVALID_ARGUMENT
    with pytest.raises(TypeError):
        counter.add()
    with pytest.raises(DeadlineExceeded):
        client.proxy(Counter, timeout=0.05).hang()

    def numbers():
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        counter.total(numbers())
    with pytest.raises(ZeroDivisionError):
        list(counter.doubled(numbers()))

    async def wrong():
        yield 1

    with pytest.raises(TypeError, match="plain one"):
        counter.total(wrong())
    with pytest.raises(ProtocolError, match="needs an event loop"):
        counter.tell(print)
    assert counter.add(1) == 1


def test_a_stream_that_is_left_is_ended_on_the_other_side(client):
    counter = client.proxy(Counter)
    with counter.count(2, hang=True) as numbers:
        assert next(numbers) == 2
    assert list(numbers) == []
    numbers = counter.count(2, hang=True)
    next(numbers)
    del numbers
    gc.collect()
    asked = threading.Event()

    def endless():
        while True:
            asked.set()
            yield 1

    results = counter.doubled(endless())
    assert next(results) == 2
    results.close()
    assert asked.is_set()
    assert counter.add(1) == 1
