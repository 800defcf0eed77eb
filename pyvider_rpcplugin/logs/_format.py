"""From a `logging.LogRecord` to a line of JSON as hclog writes it. No I/O here."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec

# Hosts read lines with a buffer of 64 KiB: what is longer would come as pieces of no meaning.
LONGEST = 60_000
# What a text or value may take in a line that would be too long.
_CUT = 8_000
_CUT_MARK = "... (cut)"

# What every record has; all else came as `extra`.
RECORD_ATTRIBUTES: frozenset[str] = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None))
) | {"message", "asctime", "taskName"}

_LEVELS = ((40, "error"), (30, "warn"), (20, "info"), (10, "debug"))

_formatter = logging.Formatter()


def level_word(number: int) -> str:
    """The name that hclog has for a level of `logging`."""
    for least, word in _LEVELS:
        if number >= least:
            return word
    return "trace"


def format_record(record: logging.LogRecord) -> bytes:
    """Make one line of a record, its end included: never more than 64 KiB, whatever is in it.

    A traceback is the value of `stacktrace`. What the record got as `extra` are further values.

    Args:
        record: The record. It is not changed.
    """
    line: dict[str, Any] = {
        "@level": level_word(record.levelno),
        "@message": _message(record),
        "@module": record.name,
        "@timestamp": _timestamp(record.created),
    }
    for key, value in vars(record).items():
        if key not in RECORD_ATTRIBUTES and key not in line:
            line[key] = value
    trace = _stacktrace(record)
    if trace:
        line["stacktrace"] = trace
    data = _encode(line)
    if len(data) > LONGEST:
        data = _encode({key: _shortened(value) for key, value in line.items()})
    if len(data) > LONGEST:
        # Very many values: those that every line has are what is left.
        core = {key: value for key, value in line.items() if key[0] == "@"}
        data = _encode({key: _shortened(value) for key, value in list(core.items())[:4]})
    return data + b"\n"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a call with the wrong arguments: say what there is
        return f"{_text(record.msg)} {_text(record.args)} ({type(error).__name__}: {_text(error)})"


def _timestamp(seconds: float) -> str:
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        time = datetime.fromtimestamp(0, UTC)
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _stacktrace(record: logging.LogRecord) -> str:
    parts: list[str] = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(record.exc_text or _formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(_formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _encode(line: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(line, enc_hook=_text)
    except Exception:  # noqa: BLE001 - boundary: values of any class, with code of their own
        # One of them is no text (a lone surrogate), refers to itself, or is too deep.
        return msgspec.json.encode({_clean(key): _plain(value) for key, value in line.items()})


def _plain(value: Any) -> Any:
    try:
        return msgspec.Raw(msgspec.json.encode(value, enc_hook=_text))
    except Exception:  # noqa: BLE001 - as above
        return _clean(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - as above
        return f"<{type(value).__name__}>"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _shortened(value: Any) -> Any:
    text = value if isinstance(value, str) else _text(value)
    if len(_encode({"": text})) <= _CUT:
        return text if isinstance(value, str) else value
    # Six bytes is the most that one character takes, as an escape.
    return text[: _CUT // 6] + _CUT_MARK
