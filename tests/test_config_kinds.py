from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin import _config_kinds as kinds

NUMBER = kinds.WholeNumber(0, 10, special=-1, special_meaning="none")
SECONDS = kinds.Number(0, above=True, unit="seconds")
WORDS = kinds.WordList(("unix", "tcp"))
VERSIONS = kinds.NumberList(kinds.WholeNumber(0, 100))
LEVEL = kinds.Word(("INFO", "WARNING"), also=(("warn", "WARNING"),))


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        *[(kinds.Boolean(), text, True) for text in ("true", "1", "YES", " On ", 1, True)],
        *[(kinds.Boolean(), text, False) for text in ("False", "0", "no", "off", 0, False)],
        (kinds.BooleanOrRequired(), "Required", "required"),
        (kinds.BooleanOrRequired(), "yes", True),
        (kinds.BooleanOrRequired(), False, False),
        (NUMBER, " 7 ", 7),
        (NUMBER, "+7", 7),
        (NUMBER, 10, 10),
        (NUMBER, "-1", -1),
        (kinds.WholeNumber(1), 10**15, 10**15),
        (SECONDS, "0.5", 0.5),
        (SECONDS, 3, 3.0),
        (kinds.Number(0), 0, 0.0),
        (LEVEL, "info", "INFO"),
        (LEVEL, "Warn", "WARNING"),
        (kinds.Text(), " kept ", " kept "),
        (kinds.Text(empty=True), None, ""),
        (kinds.Text(name=True), "MY_COOKIE", "MY_COOKIE"),
        (kinds.FilePath(), Path("/x/y"), "/x/y"),
        (kinds.FilePath(), None, ""),
        (kinds.Pem(), "file:///x", "file:///x"),
        (WORDS, "tcp, UNIX", ("tcp", "unix")),
        (WORDS, ["unix"], ("unix",)),
        (VERSIONS, "6,5,5", (5, 6)),
        (VERSIONS, 3, (3,)),
        (VERSIONS, {2, 1}, (1, 2)),
    ],
)
def test_what_is_of_the_kind_is_taken(kind, given, expected):
    result = kind.parse(given)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *[(kinds.Boolean(), value) for value in ("", "2", "maybe", 2, None, 1.0, ["true"])],
        *[(kinds.BooleanOrRequired(), value) for value in ("require", None)],
        *[
            (NUMBER, value)
            for value in ("", "1_0", "٣", "1.0", "11", "9" * 5000, 11, -2, True, 1.5, None)
        ],
        *[
            (SECONDS, value)
            for value in ("", "abc", "nan", "inf", 0, -1, True, None, 10**400, float("inf"))
        ],
        *[(LEVEL, value) for value in ("", "LOUD", 20, None)],
        *[(kinds.Text(), value) for value in ("", "a\0b", None, 3)],
        *[(kinds.Text(name=True), value) for value in ("", "A=B")],
        *[(kinds.FilePath(), value) for value in ("a\0b", b"bytes", 3)],
        (kinds.FilePath(), type("BytesPath", (), {"__fspath__": lambda _: b"x"})()),
        *[(WORDS, value) for value in ("", "unix,", "unix,unix", "udp", [1], [], 3, b"unix")],
        *[(VERSIONS, value) for value in ("", "1,", "a", [], [1.5], True, None, -1)],
    ],
)
def test_what_is_not_of_the_kind_is_refused(kind, given):
    with pytest.raises(kinds.NotAccepted):
        kind.parse(given)


@given(
    st.sampled_from(
        [
            kinds.Boolean(),
            kinds.BooleanOrRequired(),
            NUMBER,
            SECONDS,
            LEVEL,
            kinds.Text(),
            kinds.FilePath(),
            WORDS,
            VERSIONS,
        ]
    ),
    st.text() | st.integers() | st.floats() | st.none() | st.binary() | st.lists(st.integers()),
)
def test_every_value_is_taken_or_refused(kind, value):
    try:
        result = kind.parse(value)
    except kinds.NotAccepted:
        return
    # What was taken is of the kind, in the form that a program works with.
    assert kind.parse(result) == result


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (kinds.Boolean(), True),
        (kinds.BooleanOrRequired(), "required"),
        (NUMBER, 3),
        (SECONDS, 10.0),
        (LEVEL, "INFO"),
        (WORDS, ("tcp", "unix")),
        (VERSIONS, (1, 2)),
        (kinds.Text(), "x"),
        (kinds.FilePath(), "/x"),
    ],
)
def test_a_value_as_text_means_the_same_value(kind, value):
    assert kind.parse(kind.text(value)) == value


def test_no_value_is_shown_as_such():
    assert kinds.FilePath().text("") == "empty"
    assert kinds.Text(empty=True).text("") == "empty"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (kinds.Boolean(), "true or false (also 1/0, yes/no, on/off)"),
        (kinds.BooleanOrRequired(), "true, false or required"),
        (NUMBER, "a whole number from 0 to 10, or -1 for none"),
        (kinds.WholeNumber(1), "a whole number of 1 or more"),
        (kinds.WholeNumber(1, 1), "1 only"),
        (SECONDS, "a number of seconds above 0"),
        (kinds.Number(1), "a number not below 1"),
        (LEVEL, "one of INFO, WARNING"),
        (kinds.Text(), "text that is not empty"),
        (kinds.Text(empty=True), "text"),
        (kinds.Text(name=True), "the name of an environment variable"),
        (kinds.FilePath(), "a path"),
        (kinds.Pem(), "PEM text, a file:// URI or a path"),
        (WORDS, "one or more of unix, tcp, separated by commas"),
        (VERSIONS, "whole numbers of 0 or more, separated by commas"),
    ],
)
def test_a_kind_says_what_it_accepts(kind, expected):
    assert kind.accepts == expected


def test_a_kind_itself_accepts_nothing():
    kind = kinds.Kind()
    with pytest.raises(NotImplementedError):
        kind.parse("x")
    with pytest.raises(NotImplementedError):
        _ = kind.accepts
    assert kind.text(1) == "1"


def test_values_are_shown_short_and_without_pem():
    assert kinds.show("x") == "'x'"
    assert len(kinds.show("x" * 1000)) == 60
    assert "\n" not in kinds.show("two\nlines")
    assert "MII" not in kinds.show("-----BEGIN CERTIFICATE-----\nMII")
