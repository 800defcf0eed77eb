from collections.abc import AsyncIterator

from pyvider_rpcplugin import plugin_server


class Greeter:
    async def hello(self, name: str, *, loud: bool = False) -> str:
        return f"Hello, {name}{'!' if loud else '.'}"

    async def countdown(self, start: int) -> AsyncIterator[int]:
        for n in range(start, 0, -1):
            yield n


if __name__ == "__main__":
    plugin_server(handler=Greeter()).run()
