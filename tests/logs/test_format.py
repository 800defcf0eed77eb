"""What a plugin writes of its log, read again as a host does."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.logs import LogLine, StderrParser, format_record, level_word


def made(message: object, *args: object, level: int = logging.INFO, **extra: Any):
    record = logging.LogRecord("a.b", level, "f.py", 1, message, args, None)
    record.created = 1767319445.123456
    record.__dict__.update(extra)
    return record


def read(line: bytes) -> LogLine:
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= 65536
    [record] = StderrParser().feed(line[:-1].decode())
    return record


def test_a_line_has_the_form_that_hosts_in_go_expect() -> None:
    line = json.loads(format_record(made("got %d", 5, n=1)))
    assert list(line) == ["@level", "@message", "@module", "@timestamp", "n"]
    assert line == {
        "@level": "info",
        "@message": "got 5",
        "@module": "a.b",
        "@timestamp": "2026-01-02T02:04:05.123456Z",
        "n": 1,
    }


@pytest.mark.parametrize(
    ("level", "word"),
    [
        (5, "trace"),
        (10, "debug"),
        (19, "debug"),
        (20, "info"),
        (30, "warn"),
        (40, "error"),
        (50, "error"),
    ],
)
def test_each_level_has_its_word(level: int, word: str) -> None:
    assert level_word(level) == word
    assert json.loads(format_record(made("m", level=level)))["@level"] == word


def test_an_exception_goes_along() -> None:
    try:
        raise KeyError("it")
    except KeyError:
        record = logging.LogRecord("a", 40, "f.py", 1, "m", (), sys.exc_info())
        record.stack_info = "Stack (most recent call last):\n  x"
    trace = read(format_record(record)).fields["stacktrace"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("KeyError: 'it'\nStack (most recent call last):\n  x")
    record = made("m", exc_text="as it was printed")
    assert read(format_record(record)).fields["stacktrace"] == "as it was printed"


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError


def test_values_of_any_kind_become_something() -> None:
    itself: list[object] = []
    itself.append(itself)
    odd: dict[str, Any] = {
        "a": itself,
        "b": Hostile(),
        "c": "\ud800",
        "d": object,
        "e": {1: {2}},
        "f": 1,
    }
    fields = read(format_record(made("\udcff", **odd))).fields
    assert fields.keys() == odd.keys() | {"@module"}
    assert fields["b"] == "<Hostile>"
    assert fields["c"] == "\\ud800"
    assert fields["e"] == {"1": [2]}
    assert fields["f"] == 1
    assert read(format_record(made("m", key=None, surrogate="\ud800"))).fields["key"] is None


def test_a_message_that_does_not_fit_its_arguments_is_written_as_it_is() -> None:
    assert "TypeError" in read(format_record(made("%d %d", 1))).message
    assert read(format_record(made("%s", Hostile()))).message
    assert read(format_record(made(Hostile(), 1))).message.startswith("<Hostile> (1,)")
    assert read(format_record(made("m", created_at=1))).fields["created_at"] == 1


def test_names_that_every_line_has_are_not_taken() -> None:
    taken: dict[str, Any] = {"@message": "mine", "@level": "error"}
    record = read(format_record(made("m", **taken)))
    assert (record.message, record.level) == ("m", logging.INFO)


def test_a_time_out_of_range_is_written_as_the_beginning() -> None:
    record = made("m")
    record.created = 1e300
    assert b'"1970-01-01T00:00:00.000000Z"' in format_record(record)


@pytest.mark.parametrize("size", [59_000, 70_000, 10_000_000])
def test_a_line_that_would_be_too_long_is_cut(size: int) -> None:
    record = read(format_record(made("é" * size, trace="\0" * size, data=[0] * size, n=1)))
    assert record.message.startswith("ééé")
    assert record.message.endswith("(cut)")
    assert record.fields["n"] == 1
    many: dict[str, Any] = {f"x{n}": "x" * 1000 for n in range(1000)}
    record = read(format_record(made("m", **many)))
    assert (record.message, list(record.fields)) == ("m", ["@module"])


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NAMES = st.text("abcxyz_", min_size=8, max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=8,
)


@given(
    _TEXT,
    st.sampled_from([10, 20, 30, 40]),
    st.datetimes().map(lambda time: time.replace(year=2026).timestamp()),
    st.dictionaries(_NAMES, _VALUES),
)
def test_what_was_written_is_what_is_read(message, level, created, fields) -> None:
    record = made(message, level=level, **fields)
    record.created = created
    found = read(format_record(record))
    assert (found.level, found.message) == (level, message)
    assert found.time == pytest.approx(created, abs=1e-6)
    assert found.fields == {"@module": "a.b", **fields}


# `logging` refuses these as names of further fields.
_TAKEN = {"message", "asctime", *vars(made(""))}
_FIELDS = st.dictionaries(
    st.text().filter(lambda name: name not in _TAKEN), st.text() | st.floats() | st.binary()
)


@given(_FIELDS, st.text(), st.floats())
def test_no_record_makes_it_fail(extra, message, created) -> None:
    record = made(message)
    record.__dict__.update(extra)
    record.created = created
    read(format_record(record))
