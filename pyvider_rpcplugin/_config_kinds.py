"""The kinds of value that a setting can have: what text and which objects each accepts.

A kind turns what a user gave (an environment variable's text, or a Python value) into the value
that the program works with, or raises :class:`NotAccepted`. It never says who gave the value or which
setting it was for: ``config`` does.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from typing import Any, Literal, cast

import msgspec

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
# int() takes underscores and digits of every script, and refuses over 4300 digits by its own error.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_PEM_MARK = "-----BEGIN"


class NotAccepted(ValueError):
    """The value is not of the kind."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of value; subclasses say which."""

    @property
    def accepts(self) -> str:
        """What is accepted, as the end of a sentence."""
        raise NotImplementedError

    def parse(self, value: object) -> Any:
        """The value to work with; ``NotAccepted`` if this is not one."""
        raise NotImplementedError

    def text(self, value: Any) -> str:
        """The value as one would write it in the environment."""
        return str(value)


class Boolean(Kind, frozen=True):
    """True or false, in any of the usual spellings."""

    @property
    def accepts(self) -> str:
        return "true or false (also 1/0, yes/no, on/off)"

    def parse(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, (str, int)):
            word = str(value).strip().lower()
            if word in _TRUE:
                return True
            if word in _FALSE:
                return False
        raise NotAccepted

    def text(self, value: Any) -> str:
        return str(value).lower()


class BooleanOrRequired(Kind, frozen=True):
    """A boolean with one step above true."""

    @property
    def accepts(self) -> str:
        return "true, false or required"

    def parse(self, value: object) -> bool | Literal["required"]:
        if isinstance(value, str) and value.strip().lower() == "required":
            return "required"
        return Boolean().parse(value)

    def text(self, value: Any) -> str:
        return str(value).lower()


class WholeNumber(Kind, frozen=True):
    """An integer between two bounds, or one special value outside of them."""

    low: int
    high: int | None = None
    special: int | None = None
    special_meaning: str = ""

    @property
    def accepts(self) -> str:
        if self.low == self.high:
            return f"{self.low} only"
        bounds = (
            f"of {self.low} or more" if self.high is None else f"from {self.low} to {self.high}"
        )
        special = f", or {self.special} for {self.special_meaning}" if self.special_meaning else ""
        return f"a whole number {bounds}{special}"

    def parse(self, value: object) -> int:
        if isinstance(value, str):
            if not _WHOLE_NUMBER.fullmatch(value.strip()):
                raise NotAccepted
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise NotAccepted
        if value == self.special:
            return value
        if value < self.low or (self.high is not None and value > self.high):
            raise NotAccepted
        return value


class Number(Kind, frozen=True):
    """A finite number with a lower bound, which may itself be excluded."""

    low: float
    above: bool = False
    unit: str = ""

    @property
    def accepts(self) -> str:
        of = f" of {self.unit}" if self.unit else ""
        return f"a number{of} {'above' if self.above else 'not below'} {self.low:g}"

    def parse(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise NotAccepted
        try:
            number = float(value)
        except (ValueError, OverflowError):  # overflow: an int beyond every float
            raise NotAccepted from None
        if not math.isfinite(number) or number < self.low or (self.above and number == self.low):
            raise NotAccepted
        return number

    def text(self, value: Any) -> str:
        return repr(float(value))


class Word(Kind, frozen=True):
    """One of a few words, in any case."""

    words: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()

    @property
    def accepts(self) -> str:
        return f"one of {', '.join(self.words)}"

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise NotAccepted
        word = value.strip().casefold()
        for candidate in self.words:
            if candidate.casefold() == word:
                return candidate
        for spelling, meant in self.also:
            if spelling.casefold() == word:
                return meant
        raise NotAccepted


class Text(Kind, frozen=True):
    """Any text that can be in an environment."""

    empty: bool = False
    name: bool = False

    @property
    def accepts(self) -> str:
        if self.name:
            return "the name of an environment variable"
        return "text" if self.empty else "text that is not empty"

    def parse(self, value: object) -> str:
        if value is None and self.empty:
            return ""
        if not isinstance(value, str) or "\0" in value or (self.name and "=" in value):
            raise NotAccepted
        if not value and not self.empty:
            raise NotAccepted
        return value

    def text(self, value: Any) -> str:
        return str(value) or "empty"


class FilePath(Kind, frozen=True):
    """The path of a file or folder, or nothing."""

    @property
    def accepts(self) -> str:
        return "a path"

    def parse(self, value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, (str, os.PathLike)):
            raise NotAccepted
        path = os.fspath(cast("os.PathLike[Any]", value))
        if not isinstance(path, str) or "\0" in path:
            raise NotAccepted
        return path

    def text(self, value: Any) -> str:
        return str(value) or "empty"


class Pem(FilePath, frozen=True):
    """A certificate or a key: the PEM itself, or where it is."""

    @property
    def accepts(self) -> str:
        return "PEM text, a file:// URI or a path"


class WordList(Kind, frozen=True):
    """Some of a few words, each once, in an order that matters."""

    words: tuple[str, ...]

    @property
    def accepts(self) -> str:
        return f"one or more of {', '.join(self.words)}, separated by commas"

    def parse(self, value: object) -> tuple[str, ...]:
        found: list[str] = []
        for item in _items(value):
            word = item.strip().lower() if isinstance(item, str) else ""
            if word not in self.words or word in found:
                raise NotAccepted
            found.append(word)
        if not found:
            raise NotAccepted
        return tuple(found)

    def text(self, value: Any) -> str:
        return ",".join(value)


class NumberList(Kind, frozen=True):
    """Whole numbers, at least one; kept sorted and each once."""

    item: WholeNumber

    @property
    def accepts(self) -> str:
        return "whole numbers of 0 or more, separated by commas"

    def parse(self, value: object) -> tuple[int, ...]:
        items = [value] if isinstance(value, int) else _items(value)
        numbers = {self.item.parse(item) for item in items}
        if not numbers:
            raise NotAccepted
        return tuple(sorted(numbers))

    def text(self, value: Any) -> str:
        return ",".join(map(str, value))


def _items(value: object) -> Iterable[object]:
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return list(cast("Iterable[object]", value))
    raise NotAccepted


def show(value: object) -> str:
    """A value for an error message: one short line, and never the text of a certificate or key."""
    if _PEM_MARK in str(value):
        return "inline PEM (not shown)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
