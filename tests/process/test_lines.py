"""Splitting bytes into lines, without a process."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies

from pyvider_rpcplugin.process._lines import LineSplitter


def split(*chunks: bytes, longest: int = 65536) -> list[str]:
    splitter = LineSplitter(longest)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.flush()]


def test_lines_come_without_their_ends():
    assert split(b"one\ntwo\r\n\nlast") == ["one", "two", "", "last"]


def test_a_line_may_arrive_in_parts():
    assert split(b"he", b"ll", b"o\nwor", b"ld\n") == ["hello", "world"]


def test_nothing_is_no_line():
    assert split() == split(b"") == []


def test_bytes_that_are_no_text_do_no_harm():
    assert split(b"caf\xc3\xa9 \xff\n") == ["café \ufffd"]


def test_a_long_line_comes_in_pieces_while_it_arrives():
    splitter = LineSplitter(4)
    assert splitter.feed(b"abcdefghij") == ["abcd", "efgh"]
    assert splitter.feed(b"k\nl") == ["ijk"]
    assert splitter.flush() == ["l"]


def test_a_line_of_exactly_the_longest_length_is_one_line():
    assert split(b"abcd\nefgh\n", longest=4) == ["abcd", "efgh"]


def test_a_piece_does_not_end_inside_a_character():
    assert split("aé€😀é".encode(), longest=5) == ["aé", "€", "😀", "é"]


@hypothesis.given(strategies.lists(strategies.binary()), strategies.integers(1, 20))
def test_every_byte_comes_out_however_it_went_in(chunks, longest):
    printable = [bytes(byte % 26 + 97 if byte % 5 else 10 for byte in chunk) for chunk in chunks]
    whole = b"".join(printable)
    lines = split(*printable, longest=longest)
    assert "".join(lines) == whole.replace(b"\n", b"").decode()
    assert all(len(line) <= longest for line in lines)
    if all(len(line) <= longest for line in whole.split(b"\n")):
        expected = whole.decode().split("\n")
        assert lines == (expected if expected[-1] else expected[:-1])
