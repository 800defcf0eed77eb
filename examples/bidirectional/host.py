import sys
from pathlib import Path

import anyio
from game_plugin import Game, Hint

from pyvider_rpcplugin import plugin_client

PLUGIN = Path(__file__).with_name("game_plugin.py")


class Player:
    """Halves what is left."""

    def __init__(self) -> None:
        self.low, self.high = 1, 1000

    @property
    def guess(self) -> int:
        return (self.low + self.high) // 2

    def learn(self, hint: Hint) -> None:
        if hint is Hint.HIGHER:
            self.low = self.guess + 1
        elif hint is Hint.LOWER:
            self.high = self.guess - 1


async def stream(game: Game) -> None:
    """Guesses and hints are on their way at the same time, on one call."""
    player = Player()
    send, guesses = anyio.create_memory_object_stream[int](1)
    async with send, guesses:
        await send.send(player.guess)
        async for hint in game.play(guesses, seed=7):
            print(f"{player.guess}: {hint.value}")
            if hint is not Hint.RIGHT:
                player.learn(hint)
                await send.send(player.guess)


async def call_back(game: Game) -> None:
    """The plugin has the say, and calls a function of the host's."""
    player = Player()

    async def guess(hints: list[Hint]) -> int:
        if hints:
            player.learn(hints[-1])
        return player.guess

    print(f"guessed {await game.referee(guess, seed=7)} times")


async def main() -> None:
    async with plugin_client([sys.executable, str(PLUGIN)]) as client:
        game = client.proxy(Game)
        await stream(game)
        await call_back(game)


if __name__ == "__main__":
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
