"""A picture, and how it is written to a file: without a library, so that the example needs none."""

import struct
import zlib
from pathlib import Path

WIDTH, HEIGHT = 96, 64


def draw() -> bytes:
    """A red disc before a sky: three bytes for each pixel, row by row."""
    pixels = bytearray()
    for y in range(HEIGHT):
        for x in range(WIDTH):
            in_disc = (x - 60) ** 2 + (y - 30) ** 2 < 20**2
            pixels += bytes((220, 40, 30) if in_disc else (x, 2 * x, 255 - 2 * y))
    return bytes(pixels)


def write_png(path: Path, pixels: bytes) -> None:
    rows = [pixels[at : at + 3 * WIDTH] for at in range(0, len(pixels), 3 * WIDTH)]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def colours(pixels: bytes) -> int:
    return len({pixels[at : at + 3] for at in range(0, len(pixels), 3)})
