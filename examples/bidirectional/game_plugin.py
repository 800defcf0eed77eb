import random
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum

from pyvider_rpcplugin import plugin_server


class Hint(Enum):
    HIGHER = "higher"
    LOWER = "lower"
    RIGHT = "right"


class Game:
    async def play(self, guesses: AsyncIterator[int], *, seed: int) -> AsyncIterator[Hint]:
        """A stream each way: the host sends guesses, and gets a hint for each."""
        secret = random.Random(seed).randint(1, 1000)
        async for guess in guesses:
            yield hint(guess, secret)
            if guess == secret:
                break

    async def referee(self, player: Callable[[list[Hint]], Awaitable[int]], *, seed: int) -> int:
        """Calls back: the host gives a function, and the plugin calls that for each guess."""
        secret = random.Random(seed).randint(1, 1000)
        hints: list[Hint] = []
        while Hint.RIGHT not in hints:
            hints.append(hint(await player(hints), secret))
        return len(hints)


def hint(guess: int, secret: int) -> Hint:
    if guess == secret:
        return Hint.RIGHT
    return Hint.HIGHER if guess < secret else Hint.LOWER


if __name__ == "__main__":
    plugin_server(handler=Game()).run()
