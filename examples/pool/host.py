import logging
import os
import signal
import sys
from pathlib import Path

import anyio
from painter_plugin import HEIGHT, Painter

from pyvider_rpcplugin import plugin_pool

PLUGIN = Path(__file__).with_name("painter_plugin.py")


class Picture:
    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self.rows = [""] * HEIGHT
        self.cpu_seconds = 0.0

    async def paint(self) -> None:
        # All at once: the pool gives each call to the plugin that has the fewest.
        async with anyio.create_task_group() as tasks:
            for number in range(HEIGHT):
                tasks.start_soon(self.paint_row, number)

    async def paint_row(self, number: int) -> None:
        row = await self.painter.row(number)
        self.rows[number] = row.text
        self.cpu_seconds += row.cpu_seconds


async def main() -> None:
    # As many plugins as there are cores.
    async with plugin_pool([sys.executable, str(PLUGIN)]) as pool:
        # A call that is lost because its plugin ended does no harm when it is made again.
        painter = pool.proxy(Painter, idempotent=True)

        picture = Picture(painter)
        began = anyio.current_time()
        await picture.paint()
        seconds = anyio.current_time() - began
        print("\n".join(picture.rows))
        print(f"{len(pool.pids)} plugins kept {picture.cpu_seconds / seconds:.1f} cores busy")

        again = Picture(painter)
        events = pool.events()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again.paint)
            await anyio.sleep(0.05)
            os.kill(pool.pids[0], signal.SIGKILL)
        print("one was killed, and the picture is the same:", again.rows == picture.rows)
        async for event in events:
            print(event.kind)
            if event.kind == "started":
                break


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="log: %(message)s")
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
