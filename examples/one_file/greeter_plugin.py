from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin import plugin_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Greeter:
    async def hello(self, name: str) -> str:
        return f"Hello, {name}."

    async def countdown(self, start: int) -> AsyncIterator[int]:
        for n in range(start, 0, -1):
            yield n


def main() -> None:
    plugin_server(handler=Greeter()).run()


if __name__ == "__main__":
    main()
