"""The log of one plugin: what it says on its standard error, as records of `logging`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from pyvider_rpcplugin import logs
from pyvider_rpcplugin.config import TRACE, level_number
from pyvider_rpcplugin.process import LineSplitter

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from pyvider_rpcplugin.logs import LogLine

_PARENT = "pyvider_rpcplugin.plugin"
# A traceback is complete when nothing has followed it for so long,
_PAUSE = 0.1
# and this is the longest that it is held for what may still follow.
_LONGEST_HOLD = 1.0

# Its methods too: a plugin may name a field as it likes.
_TAKEN = frozenset(dir(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime"}


class PluginLog(logging.LoggerAdapter[logging.Logger]):
    """The log of one plugin. Its level is a setting of one client, and others share the logger."""

    def __init__(self, name: str, level: str) -> None:
        logger = logging.getLogger(f"{_PARENT}.{name}")
        if logger.level == logging.NOTSET:
            # The level of the library's logger is not that of its plugins.
            logger.setLevel(TRACE)
        super().__init__(logger)
        self._level = level_number(level)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - its name in the base class
        return level >= self._level and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, Any]:
        """Leave a record what it brings along."""
        return msg, kwargs

    def relay(self, line: LogLine) -> None:
        """Log what a plugin has said, as if it had been said here and then."""
        if not self.isEnabledFor(line.level):
            return
        logger = self.logger
        record = logger.makeRecord(
            logger.name, line.level, "(plugin)", 0, line.message, (), None, "", None
        )
        record.levelname = logs.level_name(line.level)
        if line.time is not None:
            _set_time(record, line.time)
        # As attributes, like `extra`: that is where formatters look for them, structlog's too.
        for key, value in line.fields.items():
            setattr(record, f"{key}_" if key in _TAKEN else key, value)
        trace = line.fields.get("stacktrace")
        if isinstance(trace, str):
            record.exc_text = trace
        logger.handle(record)


def _set_time(record: logging.LogRecord, time: float) -> None:
    record.relativeCreated += (time - record.created) * 1000
    record.created = time
    record.msecs = float(int(time * 1000) % 1000)


class LineLog:
    """Takes one stream of lines, and logs what they say."""

    def __init__(self, log: PluginLog) -> None:
        self._log = log
        self._parser = logs.StderrParser()
        self._lines = 0
        self._holding = anyio.Event()

    def feed(self, line: str) -> None:
        """Take a line, without its end."""
        self._lines += 1
        self._relay(self._parser.feed(line))
        if self._parser.holds:
            self._holding.set()

    def flush(self) -> None:
        """Log what is held: nothing follows it."""
        self._relay(self._parser.flush())

    def _relay(self, lines: list[LogLine]) -> None:
        for line in lines:
            self._log.relay(line)

    async def run(self) -> None:
        """Log what is held once nothing has followed it for a moment; until cancelled."""
        while True:
            await self._holding.wait()
            self._holding = anyio.Event()
            longest = anyio.current_time() + _LONGEST_HOLD
            while self._parser.holds:
                seen = self._lines
                await anyio.sleep(_PAUSE)
                if self._lines == seen or anyio.current_time() > longest:
                    self._relay(self._parser.flush())


class OutputLog(LineLog):
    """Takes what a plugin prints to its `sys.stderr`, where its host has no use for it."""

    def __init__(self, log: PluginLog, longest_line: int) -> None:
        super().__init__(log)
        self._splitter = LineSplitter(longest_line)

    async def take(self, data: bytes) -> None:
        """Take a piece, which may end anywhere."""
        for line in self._splitter.feed(data):
            self.feed(line)

    def flush(self) -> None:
        """Log what is held, be it not a whole line: nothing follows it."""
        for line in self._splitter.flush():
            self.feed(line)
        super().flush()
