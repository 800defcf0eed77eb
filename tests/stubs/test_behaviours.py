"""A program written for `grpc.aio` sees the same with our channel and our server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.ours import channel_to

from .conftest import Said
from .generated import EchoStub
from .said import GROUPS, run_one
from .script import BEHAVIOURS, BLOCKING, INTERCEPTED

pytestmark = pytest.mark.interop

SaidBy = Callable[[str], Said]


async def said_by_us(address: str, servicer: str, name: str) -> list[str]:
    group = GROUPS["blocking" if servicer == "blocking" else "async"]
    async with channel_to({"unix": f"{address}-{servicer}"}, "unix") as channel:
        stub: Any = EchoStub(channel)
        stub.channel = channel
        return await run_one(group[name], stub)


@pytest.mark.parametrize("servicer", ["aio", "reader-writer"])
@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_our_channel_says_the_same(
    name: str, servicer: str, grpcio_server: str, reference: SaidBy
) -> None:
    assert await said_by_us(grpcio_server, servicer, name) == reference(servicer)[name]


@pytest.mark.parametrize("name", BLOCKING)
async def test_our_channel_says_the_same_of_threads(
    name: str, grpcio_server: str, reference: SaidBy
) -> None:
    assert await said_by_us(grpcio_server, "blocking", name) == reference("blocking")[name]


@pytest.mark.parametrize("servicer", ["aio", "reader-writer"])
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_our_server_is_answered_the_same(
    name: str, servicer: str, reference: SaidBy, with_our_server: SaidBy
) -> None:
    assert with_our_server(servicer)[name] == reference(servicer)[name]


@pytest.mark.parametrize("name", BLOCKING)
def test_our_server_runs_plain_functions_in_threads_alike(
    name: str, reference: SaidBy, with_our_server: SaidBy
) -> None:
    assert with_our_server("blocking")[name] == reference("blocking")[name]


@pytest.mark.parametrize("name", INTERCEPTED)
def test_our_server_takes_grpcios_interceptors(
    name: str, reference: SaidBy, with_our_server: SaidBy
) -> None:
    assert with_our_server("intercepted")[name] == reference("intercepted")[name]


def test_there_are_enough_behaviours() -> None:
    assert len(BEHAVIOURS) >= 40
