from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio

from pyvider_rpcplugin import plugin_server, raises

STORY = "Once upon a time there was a {topic} that nobody had ever seen."


@dataclass
class Summary:
    words: int
    longest: str


class NothingToSay(Exception):
    pass


@raises(NothingToSay)
class Teller:
    def __init__(self) -> None:
        self.telling = 0

    async def summary(self, text: str) -> Summary:
        words = text.split()
        if not words:
            raise NothingToSay("there are no words in it")
        return Summary(len(words), max(words, key=len))

    async def tell(self, topic: str) -> AsyncGenerator[str, None]:
        """Tell a story word by word, and over and over."""
        self.telling += 1
        try:
            while True:
                for word in STORY.format(topic=topic).split():
                    yield f"{word} "
                    await anyio.sleep(0.01)
        finally:
            self.telling -= 1

    async def listeners(self) -> int:
        return self.telling


if __name__ == "__main__":
    plugin_server(handler=Teller()).run()
