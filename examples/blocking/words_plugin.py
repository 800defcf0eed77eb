from collections import Counter
from collections.abc import Iterator

from pyvider_rpcplugin import plugin_server, raises
from pyvider_rpcplugin.protocol.typed import in_threads


@raises(ValueError)
class Words:
    """Plain functions: each call has a thread, and may block."""

    def most_common(self, text: str, *, number: int = 1) -> list[str]:
        if not text.strip():
            raise ValueError("there are no words in it")
        return [word for word, _ in Counter(text.lower().split()).most_common(number)]

    def backwards(self, words: Iterator[str]) -> Iterator[str]:
        for word in words:
            yield word[::-1]


if __name__ == "__main__":
    plugin_server(handler=in_threads(Words())).run()
