from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.exception import HandshakeError, PluginExit
from pyvider_rpcplugin.handshake import NOISE_LIMIT, HandshakeReader, format_handshake_line
from tests.handshake.lines import near_lines, records

LINE = b"1|1|unix|/tmp/p|grpc|"


def read(*pieces, eof=False, limit=NOISE_LIMIT):
    """All that a reader makes of some output: line, what is left over, noise, error."""
    reader = HandshakeReader(limit)
    noise = []
    try:
        for piece in pieces:
            noise += reader.feed(piece)
        if eof:
            noise += reader.feed_eof()
    except HandshakeError as error:
        return error.message
    return reader.line, reader.leftover, noise


# --- finding the line


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"  \n"])
def test_the_line_is_found_and_the_rest_left_over(end):
    assert read(LINE + end + b"more\nand", b" more") == (LINE.decode(), b"more\nand more", [])


def test_a_banner_before_the_line_is_noise():
    output = b"banner\n\n \nb|c\n" + LINE + b"\n"
    assert read(output) == (LINE.decode(), b"", [b"banner", b"b|c"])


def test_a_line_without_a_newline_counts_only_at_the_end_of_the_output():
    assert read(LINE) == (None, b"", [])
    assert read(LINE, eof=True) == (LINE.decode(), b"", [])
    assert read(LINE + b"\n", eof=True) == (LINE.decode(), b"", [])


def test_the_end_of_the_output_is_the_end_of_a_line_of_noise():
    assert read(b"banner", eof=True) == (None, b"", [b"banner"])
    assert read(b"banner\n", eof=True) == (None, b"", [b"banner"])
    assert read(eof=True) == (None, b"", [])


def test_a_progress_display_on_the_same_line_is_noise():
    output = b"10%\r100%\r" + LINE + b"\r\n"
    assert read(output) == (LINE.decode(), b"", [b"10%\r100%"])


def test_a_wrong_line_that_is_meant_is_found_like_a_right_one():
    assert read(b"2|1|tcp|:1|grpc\n")[0] == "2|1|tcp|:1|grpc"
    assert read(b"1|1|tcp\n", LINE + b"\n")[0] == "1|1|tcp"


def test_a_path_in_no_known_encoding_is_kept():
    line = read(b"1|1|unix|/tmp/\xff|grpc\n")[0]
    assert line.encode("utf-8", "surrogateescape") == b"1|1|unix|/tmp/\xff|grpc"


# --- limits


def test_noise_up_to_the_limit_is_taken():
    noise = b"x" * 1023 + b"\n"
    assert read(noise * 1024, LINE + b"\n")[0] == LINE.decode()
    assert "no handshake line in the first 1048576 bytes" in read(noise * 1024, b"\n" + LINE)


def test_noise_without_a_newline_ends_too():
    assert read(b"x" * NOISE_LIMIT) == (None, b"", [])
    message = read(*[b"x" * 65536] * 18)
    assert "no handshake line" in message
    assert len(message) < 300


def test_blank_noise_ends_too():
    assert "wrote nothing" in read(b"\n" * (NOISE_LIMIT + 1))


# --- when there is no line


def failure(*pieces, end=None):
    reader = HandshakeReader()
    for piece in pieces:
        reader.feed(piece)
    reader.feed_eof()
    assert reader.line is None
    error = reader.failure(end)
    assert "\n" not in error.message
    assert error.hint
    assert error.hint.count("\n") <= 3
    assert error.exit is end
    return error


def test_no_output_at_all_is_said():
    message = failure().message
    assert "ended its output without a handshake line" in message
    assert "wrote nothing" in message


def test_a_line_that_is_none_is_named():
    assert "unrecognized message" in failure(b"lolinvalid").message
    assert "'lolinvalid'" in failure(b"lolinvalid\n").message
    assert "'b' as the last of 2 lines" in failure(b"a\n\nb\n").message
    assert len(failure(b"\xff" * 10_000).message) < 300


def test_the_end_of_the_plugin_is_part_of_the_error():
    end = PluginExit(3, tuple(f"line {n}" for n in range(5)))
    error = failure(end=end)
    assert "the plugin exited with status 3 without a handshake line" in error.message
    assert error.hint.endswith("stderr: line 2\nstderr: line 3\nstderr: line 4")
    assert (error.exit_status, len(error.stderr_tail)) == (3, 5)
    assert "then exited with status 3" in failure(b"noise", end=end).message
    assert max(map(len, failure(end=PluginExit(1, ("x" * 9999,))).hint.split("\n"))) == 300


def test_an_unfinished_line_can_be_told_before_its_end():
    reader = HandshakeReader()
    assert reader.seen == "it wrote nothing to its standard output"
    reader.feed(b"hello\nwor")
    assert reader.seen == "it wrote 'wor' as the last of 2 lines"


# --- however the output is cut

outputs = st.lists(
    st.one_of(
        st.binary(max_size=40),
        near_lines.map(lambda text: text.encode("utf-8", "replace")),
        records.map(lambda record: format_handshake_line(record).encode("utf-8", "replace")),
        st.sampled_from([b"\n", b"\r", b"\r\n", LINE, LINE + b"\n", b"noise\n"]),
    ),
    max_size=8,
).map(b"".join)


@given(outputs, st.lists(st.integers(0, 400)), st.booleans(), st.sampled_from([0, 10, NOISE_LIMIT]))
def test_the_cuts_between_pieces_make_no_difference(output, cuts, eof, limit):
    at = sorted({min(cut, len(output)) for cut in cuts} | {0, len(output)})
    pieces = [output[a:b] for a, b in itertools.pairwise(at)]
    whole = read(output, eof=eof, limit=limit)
    assert read(*pieces, eof=eof, limit=limit) == whole
    assert read(*(bytes([byte]) for byte in output), eof=eof, limit=limit) == whole


@given(
    st.lists(st.sampled_from([b"x" * 40_000, b"y" * 70_000, b"\n", b"1|1|unix|" + b"/" * 70_000]))
)
def test_the_cuts_make_no_difference_to_the_limits(pieces):
    def outcome(*parts):
        result = read(*parts, eof=True, limit=100_000)
        # Where it was cut decides how much of the last line was seen.
        return "too much" if isinstance(result, str) else result

    assert outcome(*pieces) == outcome(b"".join(pieces))


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"|" not in line)), records)
def test_the_line_is_found_after_any_noise(noise, record):
    line = format_handshake_line(record).encode("utf-8", "surrogatepass")
    output = b"".join(item.replace(b"\n", b"") + b"\n" for item in noise) + line
    assert read(output)[0] is not None
