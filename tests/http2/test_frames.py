from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, strategies as st

from pyvider_rpcplugin.http2 import ErrorCode, code_name
from pyvider_rpcplugin.http2._errors import ConnectionFault, StreamFault
from pyvider_rpcplugin.http2._frames import (
    DATA,
    FRAME_HEADER_SIZE,
    SETTINGS_ACK,
    FrameReader,
    frame_header,
    goaway_frame,
    header_block_frames,
    ping_frame,
    rst_stream_frame,
    settings_frame,
    strip_padding,
    window_update_frame,
)


def parse(data):
    """The frames in `data`, by hyperframe."""
    frames = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:FRAME_HEADER_SIZE]))
        frame.parse_body(memoryview(data[FRAME_HEADER_SIZE : FRAME_HEADER_SIZE + length]))
        frames.append(frame)
        data = data[FRAME_HEADER_SIZE + length :]
    return frames


def test_frame_header_is_what_hyperframe_writes():
    frame = DataFrame(7, b"x" * 70_000, flags=["END_STREAM"])
    assert frame_header(70_000, DATA, 1, 7) + frame.data == frame.serialize()


def test_settings_are_read_by_hyperframe():
    (frame,) = parse(settings_frame({3: 100, 4: 2**31 - 1}))
    assert isinstance(frame, SettingsFrame)
    assert frame.settings == {3: 100, 4: 2**31 - 1}
    (ack,) = parse(SETTINGS_ACK)
    assert ack.flags == {"ACK"}


def test_small_frames_are_read_by_hyperframe():
    ping, pong, reset, update, goaway = parse(
        ping_frame(b"12345678")
        + ping_frame(b"abcdefgh", ack=True)
        + rst_stream_frame(5, ErrorCode.CANCEL)
        + window_update_frame(3, 2**31 - 1)
        + goaway_frame(9, ErrorCode.ENHANCE_YOUR_CALM, b"too much")
    )
    assert isinstance(ping, PingFrame)
    assert (ping.opaque_data, set(ping.flags)) == (b"12345678", set())
    assert (pong.opaque_data, pong.flags) == (b"abcdefgh", {"ACK"})
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (5, 8)
    assert isinstance(update, WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 2**31 - 1)
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code) == (9, 11)
    assert goaway.additional_data == b"too much"


@pytest.mark.parametrize("end_stream", [False, True])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 201, 350])
def test_header_block_is_cut_into_continuations_no_larger_than_allowed(size, end_stream):
    block = bytes(n % 251 for n in range(size))
    frames = parse(header_block_frames(3, block, 100, end_stream=end_stream))
    assert isinstance(frames[0], HeadersFrame)
    assert all(isinstance(frame, ContinuationFrame) for frame in frames[1:])
    assert [f.stream_id for f in frames] == [3] * len(frames)
    assert b"".join(f.data for f in frames) == block
    assert all(f.body_len <= 100 for f in frames)
    assert len(frames) == max(1, -(-size // 100))
    assert ["END_HEADERS" in f.flags for f in frames] == [False] * (len(frames) - 1) + [True]
    assert ("END_STREAM" in frames[0].flags) is end_stream


raw_frames = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 8, 255]),
        st.integers(0, 255),
        st.sampled_from([0, 1, 1, 2**31 - 1]),
        st.binary(max_size=40),
    ),
    max_size=8,
)


@given(raw_frames, st.lists(st.integers(1, 60), max_size=40))
def test_any_split_gives_the_same_frames(frames, cuts):
    data = b"".join(frame_header(len(p), k, f, s) + p for k, f, s, p in frames)
    reader = FrameReader(100)
    read: list[tuple[Any, ...]] = []
    for size in cuts:
        read += reader.feed(data[:size])
        data = data[size:]
    read += reader.feed(data)
    assert joined(read) == joined(frames)


def joined(frames):
    """`frames` with adjacent content of one stream as one, since DATA is given out in parts."""
    result: list[tuple[Any, ...]] = []
    for kind, flags, stream_id, payload in frames:
        last = result[-1] if result else (None, 0, 0, b"")
        if last[0] == kind == DATA and last[2] == stream_id and not last[1] & 1:
            payload = last[3] + bytes(payload)  # noqa: PLW2901
            result.pop()
        result.append((kind, flags, stream_id, bytes(payload)))
    return result


def test_content_is_given_out_as_it_comes_in():
    reader = FrameReader(100)
    data = DataFrame(5, b"abcdef", flags=["END_STREAM"]).serialize()
    assert list(reader.feed(data[:9])) == []
    assert list(reader.feed(data[9:11])) == [(0, 0, 5, b"ab")]
    assert reader.data_left == 4
    assert list(reader.feed(b"")) == []
    rest = data[11:] + frame_header(0, 0, 0, 5)
    assert list(reader.feed(rest)) == [(0, 1, 5, b"cdef"), (0, 0, 5, b"")]
    assert reader.data_left == 0


def test_padded_content_waits_for_its_padding():
    reader = FrameReader(100)
    data = DataFrame(5, b"abc", pad_length=2, flags=["PADDED"]).serialize()
    assert list(reader.feed(data[:-1])) == []
    assert list(reader.feed(data[-1:])) == [(0, 8, 5, b"\2abc\0\0")]


def test_only_large_content_that_is_most_of_what_was_received_is_a_view():
    def types(*frames):
        reader = FrameReader(1 << 18)
        read = reader.feed(b"".join(frame.serialize() for frame in frames))
        return [type(payload) for *_, payload in read]

    large, larger = bytes(16_384), bytes(1 << 17)
    assert types(DataFrame(1, large)) == [memoryview]
    assert types(DataFrame(1, large[1:])) == [bytes]
    assert types(DataFrame(1, large), DataFrame(1, larger)) == [bytes, memoryview]
    assert types(HeadersFrame(1, large)) == [bytes]


def test_reserved_bit_of_the_stream_identifier_is_ignored():
    assert list(FrameReader(100).feed(frame_header(0, 0, 0, 5 | 1 << 31))) == [(0, 0, 5, b"")]


@pytest.mark.parametrize("step", [1, 9, 200])
def test_frame_that_is_too_large_is_refused_by_its_header(step):
    good = frame_header(100, 0, 0, 1) + bytes(100)
    data = good + frame_header(101, 0, 0, 1)
    reader = FrameReader(100)
    read = []
    with pytest.raises(ConnectionFault) as caught:
        for start in range(0, len(data), step):
            for frame in reader.feed(data[start : start + step]):
                read.append(frame)  # noqa: PERF402  # what came before the error counts
    assert caught.value.code == ErrorCode.FRAME_SIZE_ERROR
    assert joined(read) == [(0, 0, 1, bytes(100))]


def test_payload_without_padding_stays_as_it_is():
    assert strip_padding(0, b"\x05abc") == b"\x05abc"


@pytest.mark.parametrize("padding", [0, 1, 3, 255])
def test_padding_is_removed(padding):
    frame = DataFrame(1, b"abc", pad_length=padding, flags=["PADDED"])
    assert strip_padding(8, frame.serialize_body()) == b"abc"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", ErrorCode.FRAME_SIZE_ERROR),
        (b"\x01", ErrorCode.PROTOCOL_ERROR),
        (b"\x04abc", ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_padding_that_leaves_no_room_is_refused(payload, code):
    with pytest.raises(ConnectionFault) as caught:
        strip_padding(8, payload)
    assert caught.value.code == code


def test_errors_say_their_code_and_reason():
    assert str(ConnectionFault(ErrorCode.PROTOCOL_ERROR, "why")) == "PROTOCOL_ERROR: why"
    fault = StreamFault(3, ErrorCode.CANCEL, "because")
    assert (fault.stream_id, str(fault)) == (3, "CANCEL: because")


def test_error_codes_have_names_and_unknown_ones_a_number():
    assert code_name(11) == "ENHANCE_YOUR_CALM"
    assert code_name(0x1234) == "error code 0x1234"
