import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import msgspec

from pyvider_rpcplugin import plugin_server

PIECE = 64 * 1024


class Receipt(msgspec.Struct):
    size: int
    sha256: str


class Download:
    def __init__(self) -> None:
        self.sent = 0
        self.ended = anyio.Event()


class Files:
    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.downloads: dict[str, Download] = {}

    async def upload(self, name: str, pieces: AsyncIterator[bytes]) -> Receipt:
        content = b"".join([piece async for piece in pieces])
        self.contents[name] = content
        return Receipt(len(content), hashlib.sha256(content).hexdigest())

    async def download(self, name: str) -> AsyncGenerator[bytes, None]:
        self.downloads[name] = download = Download()
        try:
            content = self.contents[name]
            for start in range(0, len(content), PIECE):
                yield content[start : start + PIECE]
                download.sent += 1
        finally:
            # Reached at once when the host leaves the stream: the generator is cancelled.
            download.ended.set()

    async def sent(self, name: str) -> int:
        """How many pieces of the last download have been sent."""
        return self.downloads[name].sent

    async def wait_ended(self, name: str) -> None:
        """Wait for the end of the last download."""
        await self.downloads[name].ended.wait()


if __name__ == "__main__":
    plugin_server(handler=Files()).run()
