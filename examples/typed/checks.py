"""What the host and its plugins have agreed on: data, errors, and which methods there are."""

import dataclasses
from collections.abc import AsyncIterator
from enum import Enum
from typing import Protocol

import msgspec

from pyvider_rpcplugin import raises


class Severity(Enum):
    HINT = "hint"
    WARNING = "warning"


class Rule(msgspec.Struct, frozen=True):
    name: str
    about: str
    severity: Severity = Severity.HINT


class Line(msgspec.Struct, frozen=True):
    file: str
    number: int
    text: str


class Finding(msgspec.Struct, frozen=True):
    line: Line
    rule: Rule


@dataclasses.dataclass
class NoSuchRule(Exception):
    name: str
    rules: list[str]


@raises(NoSuchRule)
class Checker(Protocol):
    """What a plugin offers."""

    async def rules(self) -> list[Rule]: ...

    def check(
        self, lines: AsyncIterator[Line], *, only: set[str] | None = None
    ) -> AsyncIterator[Finding]: ...


class Project(Protocol):
    """What the host offers to its plugins."""

    async def widest(self, file: str) -> int: ...
