import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import anyio
from files_plugin import PIECE, Files

from pyvider_rpcplugin import plugin_client

PLUGIN = Path(__file__).with_name("files_plugin.py")
PIECES = 256


async def pieces() -> AsyncIterator[bytes]:
    for number in range(PIECES):
        yield bytes([number]) * PIECE


async def main() -> None:
    async with plugin_client([sys.executable, str(PLUGIN)]) as client:
        files = client.proxy(Files)

        receipt = await files.upload("big", pieces())
        print(f"sent {receipt.size >> 20} MiB")

        digest = hashlib.sha256()
        async for piece in files.download("big"):
            digest.update(piece)
        print("got the same back:", digest.hexdigest() == receipt.sha256)

        # A slow reader is not overrun: the plugin waits in its `yield`.
        async with aclosing(files.download("big")) as download:
            await anext(download)
            ahead = await files.sent("big")
            print("the plugin waits for a slow reader:", ahead < PIECES // 4)

        # One that leaves early is noticed.
        await files.wait_ended("big")
        print("the plugin has stopped early:", await files.sent("big") < PIECES)


if __name__ == "__main__":
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
