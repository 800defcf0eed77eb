"""Calls the plugin that a command starts: `python host.py asyncio ./greeter.pyz`, or `trio`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import anyio

from pyvider_rpcplugin import plugin_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Greeter(Protocol):
    async def hello(self, name: str) -> str: ...
    def countdown(self, start: int) -> AsyncIterator[int]: ...


async def main(command: list[str]) -> None:
    async with plugin_client(command) as client:
        greeter = client.proxy(Greeter)
        print(await greeter.hello("Ada"))
        print([n async for n in greeter.countdown(3)])


if __name__ == "__main__":
    loop, *command = sys.argv[1:]
    anyio.run(main, command, backend=loop)
