"""From the lines of a plugin's standard error to what a log can hold. No I/O here."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from typing import Any

import msgspec

from pyvider_rpcplugin.config import TRACE

# A traceback with more than this comes in parts.
_LONGEST_TRACEBACK = 65536
_MOST_LINES = 1000

_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_PREFIXES = {f"[{word.upper()}]": level for word, level in _LEVELS.items()}
_PREFIX = re.compile(r"\[(?:TRACE|DEBUG|INFO|WARN|ERROR)\]")
# After these the process is dying, and all that it still says is about that.
_FATAL = ("panic: ", "fatal error: ", "Fatal Python error: ")

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[+-]\d\d:\d\d)")
# Others are no times at which a plugin can have run, and some functions fail for them.
_EARLIEST, _LATEST = 86_400.0, 32_503_680_000.0

_TRACEBACK = "Traceback (most recent call last):"
_GROUP_TRACEBACK = re.compile(r" *\+ Exception Group Traceback \(most recent call last\):")
# What Python puts before a traceback that it prints for nobody.
_TRACEBACK_HEAD = ("Exception in thread ", "Exception ignored in: ", "Exception ignored in ")


class LogLine(msgspec.Struct, frozen=True):
    """One record of a plugin's log, as its host will log it.

    Attributes:
        level: One of the levels of `logging`, or `TRACE`.
        message: The text; several lines for a traceback.
        time: When the plugin made it, in seconds since the epoch; None if it does not say.
        fields: What else came with it.
    """

    level: int
    message: str
    time: float | None = None
    fields: dict[str, Any] = {}


class StderrParser:
    """Makes records of lines, in the order in which they come.

    A traceback is held until it is complete, which only what follows it can tell: whoever feeds
    lines calls `flush` when none has come for a moment, and at the end.
    """

    def __init__(self) -> None:
        self._fatal = False
        self._held: list[str] = []
        self._held_size = 0
        self._in_traceback = False

    @property
    def holds(self) -> bool:
        """Whether `flush` would give something."""
        return bool(self._held)

    def feed(self, line: str) -> list[LogLine]:
        """Take the next line, without its end; give the records that are complete."""
        record = _record(line)
        if record is not None:
            return [*self.flush(), record]
        if line.startswith(_FATAL):
            self._fatal = True
        if self._fatal:
            return [*self.flush(), LogLine(logging.ERROR, line)]
        return self._feed_text(line)

    def _feed_text(self, line: str) -> list[LogLine]:
        begins = line.startswith(_TRACEBACK) or _GROUP_TRACEBACK.fullmatch(line) is not None
        if self._in_traceback or (self._held and begins):
            return self._hold(line, in_traceback=True)
        # Either nothing is held, or a head that no traceback has followed.
        done = self.flush()
        if begins or line.startswith(_TRACEBACK_HEAD):
            return done + self._hold(line, in_traceback=begins)
        return [*done, LogLine(logging.DEBUG, line)]

    def _hold(self, line: str, *, in_traceback: bool) -> list[LogLine]:
        self._in_traceback = in_traceback
        self._held.append(line)
        self._held_size += len(line) + 1
        if self._held_size > _LONGEST_TRACEBACK or len(self._held) >= _MOST_LINES:
            return self.flush()
        return []

    def flush(self) -> list[LogLine]:
        """Give what is held, as complete as it is."""
        if not self._held:
            return []
        level = logging.ERROR if self._in_traceback else logging.DEBUG
        message = "\n".join(self._held).rstrip("\n")
        self._held, self._held_size, self._in_traceback = [], 0, False
        return [LogLine(level, message)]


def level_name(level: int) -> str:
    """The name of a record's level, also of that which `logging` has none for."""
    return "TRACE" if level == TRACE else logging.getLevelName(level)


def readable(line: str) -> str:
    """The line for people: level and message of a JSON line, any other as it is."""
    record = _from_json(line)
    if record is None or record.message is line:
        return line
    message = record.message.strip()
    return f"[{level_name(record.level)}] {message.splitlines()[0] if message else ''}"


def _record(line: str) -> LogLine | None:
    """The record that a line is by itself; None for a text without a level."""
    record = _from_json(line)
    if record is not None:
        return record
    prefix = _PREFIX.match(line)
    if prefix is not None:
        return LogLine(_PREFIXES[prefix[0]], line)
    return None


def _from_json(line: str) -> LogLine | None:
    """What a line of JSON says; the line itself, if that is nothing for a log; None if it is none.

    Both the other side's libraries and anything else may have written it, so nothing is taken for
    granted: not the types of the values, nor how deep they go.
    """
    if not line.lstrip(" \t\r").startswith("{"):
        return None
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    message = fields.pop("@message", "")
    word = fields.pop("@level", None)
    timestamp = fields.pop("@timestamp", None)
    time: float | None = None
    if isinstance(timestamp, str):
        if _TIMESTAMP.fullmatch(timestamp) is None:
            return None
        try:
            time = datetime.fromisoformat(timestamp).timestamp()
        except (ValueError, OverflowError):  # the thirteenth month
            return None
        if not _EARLIEST <= time <= _LATEST:
            time = None
    level = _LEVELS.get(word.strip().lower()) if isinstance(word, str) else None
    if level is None or not isinstance(message, str) or not isinstance(timestamp, str | None):
        return LogLine(logging.DEBUG, line)
    return LogLine(level, message, time, fields)
