"""Loggers whose records say by attributes what their texts say: `record.event`, and its fields.

Most texts of the library's own log are of the form `server.listening address=%s`: the name of an
event, and fields. The name becomes `record.event`, and each field an attribute with the value that
was logged, so that programs need not take texts apart.
"""

from __future__ import annotations

import logging
from typing import Any


def event_logger(name: str) -> logging.Logger:
    """The logger of this name, whose records name their events."""
    logger = logging.getLogger(name)
    logger.addFilter(name_event)
    return logger


def name_event(record: logging.LogRecord) -> bool:
    """Give a record its event and its fields; a filter that lets everything pass."""
    text: Any = record.msg
    if not isinstance(text, str) or hasattr(record, "event"):
        return True
    name, *words = text.split(" ")
    name = name.removesuffix(":")
    parts = name.split(".")
    if len(parts) == 1 or not all(part.replace("_", "").isalpha() for part in parts):
        return True
    if name != name.lower():
        return True
    record.event = name
    values = iter(record.args if isinstance(record.args, tuple) else ())
    for word in words:
        key, equals, said = word.partition("=")
        value = next(values, None) if "%" in word else said
        if equals and not hasattr(record, key):
            setattr(record, key, value)
    return True
