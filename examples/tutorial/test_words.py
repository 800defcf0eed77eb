import pytest
from words_plugin import NoWords, Words

from pyvider_rpcplugin.testing import connected, launched

pytestmark = pytest.mark.anyio


async def test_words_are_counted() -> None:
    async with connected(Words()) as client:
        assert await client.proxy(Words).count("a b a") == {"a": 2, "b": 1}


async def test_a_text_without_words_is_refused() -> None:
    async with connected(Words()) as client:
        with pytest.raises(NoWords, match="no words in"):
            await client.proxy(Words).count(" ")


async def test_it_works_in_a_process_of_its_own() -> None:
    async with launched(Words) as client:
        words = client.proxy(Words).longest("a long text")
        assert [word async for word in words] == ["long", "text", "a"]
