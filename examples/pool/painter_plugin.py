import time

import msgspec
from anyio import to_thread

from pyvider_rpcplugin import plugin_server

WIDTH, HEIGHT = 72, 24
DEPTH = 5_000
SHADES = " .:-=+*#%@"


class Row(msgspec.Struct):
    number: int
    text: str
    cpu_seconds: float


class Painter:
    async def row(self, number: int) -> Row:
        # In a thread, so that the plugin goes on answering while it calculates.
        return await to_thread.run_sync(paint, number)


def paint(number: int) -> Row:
    """One row of the Mandelbrot set."""
    began = time.thread_time()
    text = "".join(shade(column, number) for column in range(WIDTH))
    return Row(number, text, time.thread_time() - began)


def shade(column: int, row: int) -> str:
    point = complex(3.2 * column / WIDTH - 2.2, 2.4 * row / HEIGHT - 1.2)
    value = 0j
    for step in range(DEPTH):
        value = value * value + point
        if abs(value) > 2:
            return SHADES[step % (len(SHADES) - 1)]
    return SHADES[-1]


if __name__ == "__main__":
    plugin_server(handler=Painter()).run()
