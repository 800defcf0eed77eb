import os
import signal
import sys

import anyio
from words_plugin import Words

from pyvider_rpcplugin import ConnectionLost, PluginEvent, RestartPolicy, plugin_client

COMMAND = [sys.executable, "words_plugin.py"]


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def tell(event: PluginEvent) -> None:
    print("event:", event.kind)


async def main() -> None:
    async with plugin_client(COMMAND) as client:
        kill(client.pid)
        try:
            await client.proxy(Words).count("one two")
        except ConnectionLost as error:
            print(error)

    async with plugin_client(COMMAND, restart=RestartPolicy(), on_event=tell) as client:
        words = client.proxy(Words, idempotent=True)
        kill(client.pid)
        print(await words.count("one two"))


if __name__ == "__main__":
    anyio.run(main)
