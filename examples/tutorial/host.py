import sys

import anyio
from words_plugin import NoWords, Words

from pyvider_rpcplugin import plugin_client


async def main() -> None:
    async with plugin_client([sys.executable, "words_plugin.py"]) as client:
        words = client.proxy(Words)
        print(await words.count("to be or not to be"))
        try:
            await words.count("")
        except NoWords as error:
            print("refused:", error)


if __name__ == "__main__":
    anyio.run(main)
