import anyio.to_thread

from pyvider_rpcplugin import plugin_server

REACH = 2


class ImageFilter:
    async def apply(self, width: int, height: int, pixels: bytes) -> bytes:
        # In a thread, so that the plugin can be called meanwhile.
        return await anyio.to_thread.run_sync(blurred, width, height, pixels)


def blurred(width: int, height: int, pixels: bytes) -> bytes:
    across = mean(pixels, width, height, step=3, stride=3 * width)
    return mean(across, height, width, step=3 * width, stride=3)


def mean(pixels: bytes, length: int, lines: int, *, step: int, stride: int) -> bytes:
    """Blur along the rows, or the columns, of all three colours."""
    result = bytearray(len(pixels))
    for colour in range(3):
        for line in range(lines):
            first = line * stride + colour
            values = pixels[first : first + (length - 1) * step + 1 : step]
            for at in range(length):
                near = values[max(0, at - REACH) : at + REACH + 1]
                result[first + at * step] = sum(near) // len(near)
    return bytes(result)


def main() -> None:
    plugin_server(handler=ImageFilter()).run()
