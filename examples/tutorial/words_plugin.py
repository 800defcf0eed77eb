from collections.abc import AsyncIterator

from pyvider_rpcplugin import plugin_server, raises


class NoWords(Exception):
    """There is nothing to count."""


@raises(NoWords)
class Words:
    """Looks at the words of a text."""

    async def count(self, text: str) -> dict[str, int]:
        """How often each word is in the text."""
        words = text.lower().split()
        if not words:
            raise NoWords(f"no words in {text!r}")
        return {word: words.count(word) for word in words}

    async def longest(self, text: str) -> AsyncIterator[str]:
        """The words, the longest first."""
        for word in sorted(text.split(), key=len, reverse=True):
            yield word


if __name__ == "__main__":
    plugin_server(handler=Words()).run()
