"""A plugin of ours that is a plain class, on the loop that its argument names."""

from __future__ import annotations

import sys

from pyvider_rpcplugin import plugin_server


class Echo:
    async def unary(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    plugin_server(handler=Echo()).run(backend="trio" if sys.argv[1] == "trio" else "asyncio")
