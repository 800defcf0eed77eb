import sys
from pathlib import Path
from typing import Protocol

import anyio
from picture import HEIGHT, WIDTH, colours, draw, write_png

from pyvider_rpcplugin import PluginHost, PluginProgram, discover


class ImageFilter(Protocol):
    """What each plugin serves; this is all that it and the host have to agree on."""

    async def apply(self, width: int, height: int, pixels: bytes) -> bytes: ...


async def main() -> None:
    # Those that are installed beside this program, and those of other environments.
    filters = discover(entry_points=True, environments=sys.argv[1:])
    for error in filters.errors:
        print(error)
    pixels = draw()
    write_png(Path("picture.png"), pixels)
    print(f"picture.png: {colours(pixels)} colours")

    async with PluginHost() as host:

        async def filtered(plugin: PluginProgram) -> None:
            client = await host.start(plugin)
            result = await client.proxy(ImageFilter).apply(WIDTH, HEIGHT, pixels)
            file = Path(f"{plugin.name}.png")
            write_png(file, result)
            said[plugin.name] = f"{file}: {colours(result)} colours. {plugin.description}"

        said: dict[str, str] = {}
        async with anyio.create_task_group() as tasks:
            for plugin in filters.values():
                tasks.start_soon(filtered, plugin)
    for name in filters:
        print(said[name])


if __name__ == "__main__":
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
