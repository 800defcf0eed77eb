"""execnet: a worker over pipes, blocking calls."""

# mypy: ignore-errors
# It is installed in an environment of its own.

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import execnet

from tests.bench.peers._one_caller import OneCaller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ECHO = """
for payload in channel:
    channel.send(payload)
"""


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[ExecnetCaller]:
    group = execnet.Group()
    gateway = group.makegateway("popen")
    try:
        yield ExecnetCaller(gateway.remote_exec(ECHO))
    finally:
        group.terminate(timeout=1)


class ExecnetCaller(OneCaller):
    def __init__(self, channel: execnet.Channel) -> None:
        self._channel = channel

    async def unary(self, payload: bytes, count: int) -> None:
        send, receive = self._channel.send, self._channel.receive
        reply = None
        for _ in range(count):
            send(payload)
            reply = receive()
        assert reply == payload
