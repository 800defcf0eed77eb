import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from checks import Checker, Line, NoSuchRule, Project

from pyvider_rpcplugin import plugin_client

PLUGIN = Path(__file__).with_name("checker_plugin.py")
FILES = {
    "poem.txt": ["The fog comes ", "on little cat feet."],
    "note.txt": ["Buy bread, and do not forget the cat's food.", "Call Ada."],
}


class Widths(Project):
    async def widest(self, file: str) -> int:
        return 30 if file == "note.txt" else 80


async def lines() -> AsyncIterator[Line]:
    for file, texts in FILES.items():
        for number, text in enumerate(texts, 1):
            yield Line(file, number, text)


async def main() -> None:
    command = [sys.executable, str(PLUGIN)]
    async with plugin_client(command, services=[Widths()]) as client:
        checker = client.proxy(Checker)

        for rule in await checker.rules():
            print(f"{rule.severity.value} {rule.name}: {rule.about}")

        # Findings come while lines are still being sent.
        async for finding in checker.check(lines()):
            print(f"{finding.line.file}:{finding.line.number}: {finding.rule.about}")

        try:
            async for _ in checker.check(lines(), only={"spelling"}):
                pass
        except NoSuchRule as error:
            print(f"there is no rule {error.name!r}, but {' and '.join(error.rules)}")


if __name__ == "__main__":
    for loop in ("asyncio", "trio"):
        print(f"on {loop}:")
        anyio.run(main, backend=loop)
