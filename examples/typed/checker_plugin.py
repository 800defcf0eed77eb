from collections.abc import AsyncIterator

from checks import Checker, Finding, Line, NoSuchRule, Project, Rule, Severity

from pyvider_rpcplugin import context, plugin_server

WIDTH = Rule("width", "a line is too wide", Severity.WARNING)
SPACE = Rule("space", "a line ends with spaces")
RULES = {rule.name: rule for rule in (WIDTH, SPACE)}


class TextChecker(Checker):
    async def rules(self) -> list[Rule]:
        return list(RULES.values())

    async def check(
        self, lines: AsyncIterator[Line], *, only: set[str] | None = None
    ) -> AsyncIterator[Finding]:
        for name in only or ():
            if name not in RULES:
                raise NoSuchRule(name, list(RULES))
        asked = {RULES[name] for name in only} if only else set(RULES.values())
        project = context().host(Project)
        async for line in lines:
            if WIDTH in asked and len(line.text) > await project.widest(line.file):
                yield Finding(line, WIDTH)
            if SPACE in asked and line.text != line.text.rstrip():
                yield Finding(line, SPACE)


if __name__ == "__main__":
    plugin_server(handler=TextChecker()).run()
