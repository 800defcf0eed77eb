"""The code on the pages about topics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from pyvider_rpcplugin import PluginHost
from pyvider_rpcplugin.testing import connected, plugin_command
from tests.pages import run_shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Greeter:
    """What the pages call."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def hello(self, name: str) -> str:
        return f"Hello, {name}."

    async def think(self, about: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.append(f"think {about}")

    async def countdown(self, start: int) -> AsyncIterator[int]:
        try:
            for n in range(start, 0, -1):
                yield n
        finally:
            self.ended.append("countdown")


async def test_one_call_ends_by_its_scope_and_by_its_block() -> None:
    handler = Greeter()
    with anyio.fail_after(5):
        async with connected(handler) as client:
            names = {"anyio": anyio, "greeter": client.proxy(Greeter)}
            await run_shown("topic-cancellation.md", "one call", **names)
            while len(handler.ended) < 2:
                await anyio.lowlevel.checkpoint()
    assert handler.ended == ["think for a long time", "countdown"]


@pytest.mark.process
async def test_a_host_of_many_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    with anyio.fail_after(10):
        names = {"PluginHost": PluginHost, "command": plugin_command(Greeter), "Greeter": Greeter}
        await run_shown("topic-structured-concurrency.md", "many plugins", **names)
    assert capsys.readouterr().out == "Hello, Ada.\n"
