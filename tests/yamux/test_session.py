"""The rules of yamux, and what becomes of a peer that does not keep them."""

from __future__ import annotations

import struct

import pytest

from pyvider_rpcplugin.yamux import (
    BACKLOG,
    WINDOW,
    DataReceived,
    GoAwayCode,
    GoAwayReceived,
    PingAcknowledged,
    SessionFaulted,
    StreamAccepted,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
    YamuxError,
    YamuxSession,
)

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


def frame(
    kind: int, flags: int, stream: int, length: int, data: bytes = b"", version: int = 0
) -> bytes:
    """A frame as the specification draws it, without our code."""
    return struct.pack("!BBHII", version, kind, flags, stream, length) + data


def data_frame(stream: int, data: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, len(data), data)


def server() -> YamuxSession:
    """A session whose peer has opened stream 1, which was accepted."""
    session = YamuxSession(client=False)
    [opened] = session.receive(frame(WINDOW_UPDATE, SYN, 1, 0))
    assert isinstance(opened, StreamOpened)
    session.accept(opened.stream)
    assert session.take_output() == frame(WINDOW_UPDATE, ACK, 1, 0)
    return session


def faulted(session: YamuxSession, data: bytes) -> str:
    """The reason for which these bytes end the session."""
    events = session.receive(data)
    assert isinstance(events[-1], SessionFaulted)
    assert session.fault == events[-1].reason
    assert session.receive(frame(PING, SYN, 0, 1)) == []
    return events[-1].reason


def test_whatever_comes_on_a_stream_of_ours_means_that_it_was_accepted() -> None:
    session = YamuxSession(client=True)
    for comes in (
        frame(WINDOW_UPDATE, 0, 1, 9),
        data_frame(3, b"x"),
        frame(WINDOW_UPDATE, FIN, 5, 0),
    ):
        stream = session.open()
        # Without the flag that says so: hashicorp's leaves it out if our end was faster.
        assert session.receive(comes)[0] == StreamAccepted(stream)
        assert stream.accepted
    refused = session.open()
    assert session.receive(frame(WINDOW_UPDATE, RST, 7, 0)) == [StreamReset(refused)]


def test_streams_are_numbered_by_side() -> None:
    host, plugin = YamuxSession(client=True), YamuxSession(client=False)
    assert [host.open().id for _ in range(3)] == [1, 3, 5]
    assert [plugin.open().id for _ in range(3)] == [2, 4, 6]
    assert host.take_output() == b"".join(frame(WINDOW_UPDATE, SYN, n, 0) for n in (1, 3, 5))


def test_a_stream_is_opened_used_at_once_and_accepted_later() -> None:
    session = YamuxSession(client=True)
    stream = session.open()
    assert session.send(stream, b"hello") == 5
    session.end(stream)
    assert session.take_output() == (
        frame(WINDOW_UPDATE, SYN, 1, 0) + data_frame(1, b"hello") + frame(WINDOW_UPDATE, FIN, 1, 0)
    )
    assert not stream.accepted
    assert session.receive(frame(WINDOW_UPDATE, ACK, 1, 0)) == [StreamAccepted(stream)]
    assert stream.accepted
    assert session.receive(data_frame(1, b"bye", FIN)) == [
        DataReceived(stream, b"bye"),
        StreamEnded(stream),
    ]
    assert stream.closed
    assert not session.streams


def test_data_may_carry_the_opening_and_the_acknowledgement() -> None:
    session = YamuxSession(client=False)
    opened, data = session.receive(data_frame(1, b"x", SYN))
    assert isinstance(opened, StreamOpened)
    assert data == DataReceived(opened.stream, b"x")
    client = YamuxSession(client=True)
    stream = client.open()
    assert client.receive(data_frame(1, b"y", ACK)) == [
        StreamAccepted(stream),
        DataReceived(stream, b"y"),
    ]


def test_who_sends_on_a_stream_has_accepted_it() -> None:
    session = YamuxSession(client=False)
    [opened] = session.receive(frame(WINDOW_UPDATE, SYN, 1, 0))
    assert isinstance(opened, StreamOpened)
    session.send(opened.stream, b"x")
    assert session.take_output() == frame(WINDOW_UPDATE, ACK, 1, 0) + data_frame(1, b"x")


def test_no_more_is_sent_than_the_window_lets() -> None:
    session = server()
    stream = session.streams[1]
    assert session.send(stream, bytes(WINDOW + 10)) == WINDOW
    assert session.send(stream, b"more") == 0
    assert stream.sendable == 0
    assert session.receive(frame(WINDOW_UPDATE, 0, 1, 7)) == [WindowOpened(stream)]
    assert session.send(stream, bytes(10)) == 7


def test_credit_is_given_back_once_half_the_window_was_consumed() -> None:
    session = server()
    stream = session.streams[1]
    session.receive(data_frame(1, bytes(WINDOW)))
    assert stream.receive_window == 0
    session.consumed(stream, WINDOW // 2 - 1)
    assert session.take_output() == b""
    session.consumed(stream, 1)
    assert session.take_output() == frame(WINDOW_UPDATE, 0, 1, WINDOW // 2)
    assert stream.receive_window == WINDOW // 2


def test_more_than_the_window_ends_the_session_before_it_is_buffered() -> None:
    session = server()
    reason = faulted(session, frame(DATA, 0, 1, WINDOW + 1))
    assert "are left" in reason
    assert session.take_output() == frame(GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)


def test_a_window_of_more_than_32_bits_ends_the_session() -> None:
    session = server()
    session.receive(frame(WINDOW_UPDATE, 0, 1, 0xFFFF_FFFF - WINDOW))
    assert session.fault is None
    assert "32 bits" in faulted(session, frame(WINDOW_UPDATE, 0, 1, 1))


def test_each_side_ends_its_own_direction() -> None:
    session = server()
    stream = session.streams[1]
    assert session.receive(frame(WINDOW_UPDATE, FIN, 1, 0)) == [StreamEnded(stream)]
    assert session.send(stream, b"still") == 5
    session.end(stream)
    session.end(stream)
    assert session.take_output() == data_frame(1, b"still") + frame(WINDOW_UPDATE, FIN, 1, 0)
    assert not session.streams
    with pytest.raises(YamuxError, match="ended already"):
        session.send(stream, b"more")


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
def test_what_comes_after_the_end_of_a_stream_ends_the_session(kind: int) -> None:
    session = server()
    session.receive(frame(WINDOW_UPDATE, FIN, 1, 0))
    assert "end" in faulted(session, frame(kind, FIN, 1, 0))


def test_a_stream_that_the_peer_gave_up_is_gone() -> None:
    session = server()
    stream = session.streams[1]
    assert session.receive(data_frame(1, b"unread", RST)) == [StreamReset(stream)]
    assert stream.is_reset
    assert not session.streams
    with pytest.raises(YamuxError, match="given up"):
        session.send(stream, b"x")
    session.consumed(stream, 5)
    session.end(stream)
    session.reset(stream)
    assert session.take_output() == b""


def test_what_still_comes_for_a_stream_that_we_gave_up_is_dropped() -> None:
    session = server()
    stream = session.streams[1]
    session.receive(frame(DATA, 0, 1, 10) + b"abc")
    session.reset(stream)
    assert session.take_output() == frame(WINDOW_UPDATE, RST, 1, 0)
    rest = b"defghij" + data_frame(1, b"late") + frame(WINDOW_UPDATE, FIN, 1, 0)
    assert session.receive(rest + frame(PING, SYN, 0, 9)) == []
    assert session.take_output() == frame(PING, ACK, 0, 9)


def test_frames_of_unknown_streams_are_dropped_whatever_their_size() -> None:
    session = YamuxSession(client=False)
    assert session.receive(frame(DATA, 0, 77, 0xFFFF_FFFF) + bytes(1000)) == []
    assert session.fault is None
    assert session._payload_left == 0xFFFF_FFFF - 1000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(WINDOW_UPDATE, SYN, 1, 0), "opened twice"),
        (frame(WINDOW_UPDATE, SYN, 2, 0), "not the peer's to open"),
        (frame(WINDOW_UPDATE, SYN, 0, 0), "not the peer's to open"),
        (frame(4, 0, 0, 0), "type 4"),
        (frame(PING, SYN, 0, 0, version=1), "version 1"),
    ],
)
def test_what_the_rules_forbid_ends_the_session(data: bytes, reason: str) -> None:
    session = server()
    assert reason in faulted(session, data)
    assert session.take_output() == frame(GO_AWAY, 0, 0, 1)
    assert all(stream.is_reset for stream in session.streams.values())
    with pytest.raises(YamuxError, match=reason):
        session.open()


def test_streams_beyond_the_backlog_are_refused() -> None:
    session = YamuxSession(client=False)
    opening = b"".join(frame(WINDOW_UPDATE, SYN, 2 * n + 1, 0) for n in range(BACKLOG + 3))
    events = session.receive(opening)
    assert len(events) == BACKLOG
    refused = [frame(WINDOW_UPDATE, RST, 2 * n + 1, 0) for n in range(BACKLOG, BACKLOG + 3)]
    assert session.take_output() == b"".join(refused)
    session.accept(session.streams[1])
    assert len(session.receive(frame(WINDOW_UPDATE, SYN, 9001, 0))) == 1


def test_a_stream_that_is_given_up_before_it_was_accepted_makes_room() -> None:
    session = YamuxSession(client=False)
    for number in range(1, 8 * BACKLOG, 2):
        opened, reset = session.receive(
            frame(WINDOW_UPDATE, SYN, number, 0) + frame(WINDOW_UPDATE, RST, number, 0)
        )
        assert isinstance(opened, StreamOpened)
        assert reset == StreamReset(opened.stream)
        session.accept(opened.stream)
    assert not session.streams
    assert session.take_output() == b""


def test_a_number_that_comes_again_is_not_accepted_for_the_stream_that_had_it() -> None:
    session = YamuxSession(client=False)
    opening = frame(WINDOW_UPDATE, SYN, 1, 0)
    first, _reset, second = session.receive(opening + frame(WINDOW_UPDATE, RST, 1, 0) + opening)
    assert isinstance(first, StreamOpened)
    assert isinstance(second, StreamOpened)
    session.accept(first.stream)
    assert session.take_output() == b""
    session.accept(second.stream)
    assert session.take_output() == frame(WINDOW_UPDATE, ACK, 1, 0)


def test_we_open_no_more_streams_than_the_peer_has_room_for() -> None:
    session = YamuxSession(client=True)
    streams = [session.open() for _ in range(BACKLOG)]
    assert not session.can_open
    with pytest.raises(YamuxError, match="wait to be accepted"):
        session.open()
    session.receive(frame(WINDOW_UPDATE, ACK, streams[0].id, 0))
    assert session.can_open
    session.open()
    session.receive(frame(WINDOW_UPDATE, RST, streams[1].id, 0))
    assert session.can_open


def test_a_second_acknowledgement_changes_nothing() -> None:
    session = YamuxSession(client=True)
    stream = session.open()
    ack = frame(WINDOW_UPDATE, ACK, stream.id, 0)
    assert session.receive(ack + ack) == [StreamAccepted(stream)]


def test_pings_are_answered_and_answers_are_told() -> None:
    session = YamuxSession(client=True)
    session.ping(5)
    assert session.take_output() == frame(PING, SYN, 0, 5)
    assert session.receive(frame(PING, ACK, 0, 6)) == []
    assert session.receive(frame(PING, ACK, 0, 5)) == [PingAcknowledged(5)]
    assert session.receive(frame(PING, ACK, 0, 5)) == []
    assert session.receive(frame(PING, SYN, 0, 0xFFFF_FFFF)) == []
    assert session.take_output() == frame(PING, ACK, 0, 0xFFFF_FFFF)
    for value in range(64):
        session.ping(value)
    with pytest.raises(YamuxError, match="unanswered"):
        session.ping(64)


def test_a_flood_of_pings_that_reads_no_answers_ends_the_session() -> None:
    session = YamuxSession(client=False)
    for _ in range(100):
        session.receive(frame(PING, SYN, 0, 1) * 4000)
        session.take_output()
        session.refresh()
    assert session.fault is None
    assert "does not read them" in faulted(session, frame(PING, SYN, 0, 1) * 5000)
    assert session.output_size < 5000 * 12


def test_a_flood_of_frames_that_carry_nothing_ends_the_session() -> None:
    for kind, flags, number, length in ((1, 0, 1, 0), (0, 0, 1, 0), (2, ACK, 0, 5), (1, 0, 99, 9)):
        session = server()
        session.refresh()
        flood = frame(kind, flags, number, length) * 9999
        session.receive(flood)
        assert session.fault is None
        session.refresh()
        session.receive(flood)
        assert session.fault is None
        assert "carry nothing" in faulted(session, frame(kind, flags, number, length) * 2)


def test_a_peer_that_leaves_gets_no_new_streams_and_the_old_ones_go_on() -> None:
    session = server()
    assert session.receive(frame(GO_AWAY, 0, 0, 0)) == [GoAwayReceived()]
    with pytest.raises(YamuxError, match="no more streams"):
        session.open()
    assert session.send(session.streams[1], b"x") == 1


def test_a_side_that_leaves_refuses_new_streams() -> None:
    session = server()
    session.go_away()
    session.go_away()
    assert session.take_output() == frame(GO_AWAY, 0, 0, 0)
    assert session.receive(frame(WINDOW_UPDATE, SYN, 3, 0)) == []
    assert session.take_output() == frame(WINDOW_UPDATE, RST, 3, 0)
    assert list(session.streams) == [1]


@pytest.mark.parametrize("code", [1, 2, 77])
def test_a_peer_that_has_failed_ends_the_session(code: int) -> None:
    session = server()
    assert "the peer says" in faulted(session, frame(GO_AWAY, 0, 0, code))
    assert session.take_output() == b""


def test_numbers_run_out() -> None:
    session = YamuxSession(client=True)
    session._next_id = 0xFFFF_FFFF
    assert session.open().id == 0xFFFF_FFFF
    assert not session.can_open
