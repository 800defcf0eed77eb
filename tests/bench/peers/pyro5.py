"""Pyro5, over a Unix socket: blocking calls, with its default serializer."""

# mypy: ignore-errors
# Pyro5 has no annotations, and is installed in an environment of its own.

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import Pyro5.api

from tests.bench.peers._one_caller import OneCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# Otherwise bytes arrive as a dict that holds base64.
Pyro5.api.config.SERPENT_BYTES_REPR = True


@Pyro5.api.expose
class Echo:
    def unary(self, payload: bytes) -> bytes:
        return payload


def serve(address: str, backend: str, ready: Callable[[], None]) -> None:
    with Pyro5.api.Daemon(unixsocket=address) as daemon:
        daemon.register(Echo(), "echo")
        ready()
        daemon.requestLoop()


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Pyro5Caller]:
    with Pyro5.api.Proxy(f"PYRO:echo@./u:{address}") as proxy:
        yield Pyro5Caller(proxy)


class Pyro5Caller(OneCaller):
    def __init__(self, proxy: Pyro5.api.Proxy) -> None:
        self._proxy = proxy

    async def unary(self, payload: bytes, count: int) -> None:
        call = self._proxy.unary
        reply = None
        for _ in range(count):
            reply = call(payload)
        assert reply == payload
