from pyvider_rpcplugin import plugin_server

SHADES = 3


class ImageFilter:
    async def apply(self, width: int, height: int, pixels: bytes) -> bytes:
        size = 256 / SHADES
        table = bytes(round(int(value / size) * 255 / (SHADES - 1)) for value in range(256))
        return pixels.translate(table)


# An entry point may be a server, too.
server = plugin_server(handler=ImageFilter())
