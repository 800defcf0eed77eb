"""What lines of a plugin's standard error become."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.config import TRACE
from pyvider_rpcplugin.logs import LogLine, StderrParser, readable

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


def records(*lines: str) -> list[LogLine]:
    parser = StderrParser()
    found = [record for line in lines for record in parser.feed(line)]
    held = parser.holds
    rest = parser.flush()
    assert held == bool(rest)
    return found + rest


def levels(*lines: str) -> list[tuple[int, str]]:
    return [(record.level, record.message) for record in records(*lines)]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('["HELLO"]', DEBUG),
        ("12345", DEBUG),
        ('{"a":1}', DEBUG),
        ("plain", DEBUG),
        ("", DEBUG),
        ("[TRACE] x", TRACE),
        ("[DEBUG] x", DEBUG),
        ("[INFO] x", INFO),
        ("[WARN] x", WARNING),
        ("[ERROR] x", ERROR),
        (" [ERROR] not at the beginning", DEBUG),
        ("[FATAL] x", DEBUG),
        ("[error] x", DEBUG),
        ("panic: x", ERROR),
        ("fatal error: x", ERROR),
        ("Fatal Python error: Segmentation fault", ERROR),
    ],
)
def test_a_line_that_is_no_json_of_a_log_stays_as_it_is(line: str, level: int) -> None:
    assert records(line) == [LogLine(level, line)]


@pytest.mark.parametrize(
    ("word", "level"),
    [
        ("trace", TRACE),
        ("debug", DEBUG),
        ("info", INFO),
        ("warn", WARNING),
        ("error", ERROR),
        (" Info ", INFO),
    ],
)
def test_each_level_of_hclog_is_known(word: str, level: int) -> None:
    assert records(json.dumps({"@message": "m", "@level": word})) == [LogLine(level, "m")]


def test_time_and_fields_are_taken_out_of_the_line() -> None:
    line = (
        '{"@message":"m","@level":"info","@timestamp":"2026-01-02T03:04:05.123456+01:00",'
        '"@module":"a.b","n":[1,null]}'
    )
    assert records(line) == [
        LogLine(INFO, "m", 1767319445.123456, {"@module": "a.b", "n": [1, None]})
    ]
    assert records("  " + line)[0].message == "m"


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-01-02T03:04:05.123Z",
        "2026-01-02T03:04:05.1234567Z",
        "2026-01-02 03:04:05.123456Z",
        "2026-13-02T03:04:05.123456Z",
        "2026-01-02T03:04:05.123456+99:99",
        "2026-01-02T03:04:05.123456",
        "",
    ],
)
def test_a_line_with_a_time_in_another_form_is_no_line_of_a_log(timestamp: str) -> None:
    line = json.dumps({"@message": "m", "@level": "info", "@timestamp": timestamp})
    assert records(line) == [LogLine(DEBUG, line)]


def test_a_time_at_which_nothing_can_have_run_is_left_out() -> None:
    line = '{"@message":"m","@level":"info","@timestamp":"0001-01-01T00:00:00.000000+23:59"}'
    assert records(line) == [LogLine(INFO, "m")]


@pytest.mark.parametrize(
    "line",
    [
        '{"@message":"m"}',
        '{"@message":"m","@level":"loud"}',
        '{"@message":"m","@level":7}',
        '{"@message":["m"],"@level":"info"}',
        '{"@message":"m","@level":"info","@timestamp":5}',
        '{"@message":"m","@level":"info"',
        '{"@message":"\\ud800","@level":"info"}',
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        '{"@level":"info","x":1' + "0" * 20_000 + "}",
    ],
)
def test_hostile_and_broken_lines_are_debug_as_they_are(line: str) -> None:
    assert records(line) == [LogLine(DEBUG, line)]


def test_all_that_follows_a_panic_is_an_error_unless_it_says_otherwise() -> None:
    json_line = '{"@message":"m","@level":"info"}'
    assert levels("before", "panic: x", "plain", "[INFO] y", json_line, '{"a":1}', "later") == [
        (DEBUG, "before"),
        (ERROR, "panic: x"),
        (ERROR, "plain"),
        (INFO, "[INFO] y"),
        (INFO, "m"),
        (DEBUG, '{"a":1}'),
        (ERROR, "later"),
    ]


TRACEBACK = """\
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    f()
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 3, in <module>
    g()
ValueError: two
lines
"""


@pytest.mark.parametrize(
    "text",
    [
        TRACEBACK,
        "Exception in thread Thread-1 (run):\n" + TRACEBACK,
        "  + Exception Group Traceback (most recent call last):\n  |   File\n  | ExceptionGroup: x",
    ],
)
def test_a_traceback_is_one_record(text: str) -> None:
    lines = text.splitlines()
    joined = text.rstrip("\n")
    assert levels("before", *lines) == [(DEBUG, "before"), (ERROR, joined)]
    assert levels(*lines, "[INFO] after") == [(ERROR, joined), (INFO, "[INFO] after")]


def test_what_is_held_is_given_when_nothing_more_comes() -> None:
    parser = StderrParser()
    for line in TRACEBACK.splitlines():
        assert parser.feed(line) == []
    assert parser.holds
    assert len(parser.flush()) == 1
    assert not parser.holds
    assert parser.feed("chatter") == [LogLine(DEBUG, "chatter")]


def test_the_head_of_a_traceback_that_does_not_come_is_a_line_like_others() -> None:
    assert levels("Exception in thread pool", "b") == [
        (DEBUG, "Exception in thread pool"),
        (DEBUG, "b"),
    ]
    assert levels("Exception ignored in: x") == [(DEBUG, "Exception ignored in: x")]


def test_a_traceback_without_end_comes_in_parts() -> None:
    found = records(TRACEBACK.splitlines()[0], *["  File"] * 5000, *["x" * 50_000] * 3)
    assert len(found) > 1
    assert found[0].level == ERROR
    assert max(len(record.message) for record in found) < 120_000


def test_a_line_of_json_has_a_form_for_people() -> None:
    assert readable("plain") == "plain"
    assert readable('{"a":1}') == '{"a":1}'
    assert readable('{"@level":"error","@message":"it broke\\nhere"}') == "[ERROR] it broke"
    assert readable('{"@level":"warn"}') == "[WARNING] "


@given(st.lists(st.text(max_size=60) | st.sampled_from(TRACEBACK.splitlines())))
def test_whatever_comes_no_text_is_lost(lines: list[str]) -> None:
    lines = [line for line in lines if "\n" not in line and not line.startswith("{")]
    texts = "\n".join(record.message for record in records(*lines)).split("\n")
    assert [text for text in texts if text] == [line for line in lines if line]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["@message", "@level", "@timestamp", "@module", "x"]), _JSON)
)
def test_no_object_makes_it_fail(values: dict[str, object]) -> None:
    line = json.dumps(values)
    [record] = records(line)
    assert record.message in [line, values.get("@message", "")]
    readable(line)
