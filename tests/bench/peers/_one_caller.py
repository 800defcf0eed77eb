"""What a peer without streams has in place of them."""

from __future__ import annotations


class OneCaller:
    async def server_stream(self, payload: bytes, count: int) -> None:
        raise NotImplementedError

    async def client_stream(self, payload: bytes, count: int) -> None:
        raise NotImplementedError

    async def ping_pong(self, payload: bytes, count: int) -> None:
        raise NotImplementedError
