from __future__ import annotations

import h2.errors
import h2.events
import h2.exceptions
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)
from hypothesis import given, strategies as st

from pyvider_rpcplugin.http2 import (
    ConnectionFaulted,
    DataReceived,
    ErrorCode,
    GoAwayReceived,
    H2Connection,
    LocalSettings,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from tests.http2.peer import (
    REQUEST,
    REQUEST_BLOCK,
    RESPONSE,
    RESPONSE_BLOCK,
    TRAILERS,
    TRAILERS_BLOCK,
    Link,
    encode,
    joined,
    kinds,
    only,
)

END = ["END_STREAM"]
WHOLE = ["END_HEADERS"]


def request_from_peer(link, stream_id=1, *, fields=REQUEST, end_stream=False):
    """A request of the peer's, as it comes in: our stream."""
    link.peer.send_headers(stream_id, fields, end_stream=end_stream)
    return only(link.to_ours(), RequestReceived).stream


def open_request(link, *, end_stream=False):
    """A request of ours that the peer has."""
    stream = link.ours.send_request(REQUEST_BLOCK, end_stream=end_stream)
    link.to_peer()
    return stream


def open_stream(link):
    """A stream with both sides' header sections sent and nothing ended, on either side."""
    if link.peer.config.client_side:
        stream = request_from_peer(link)
        link.ours.send_headers(stream, RESPONSE_BLOCK)
        link.to_peer()
        return stream
    stream = open_request(link)
    link.peer.send_headers(stream.stream_id, RESPONSE)
    link.to_ours()
    return stream


@pytest.fixture(params=["client", "server"])
def link(request, step):
    """Ours on either side."""
    return Link(client_side=request.param == "client", step=step)


def fault_of(events):
    return only(events, ConnectionFaulted).fault


def assert_connection_error(link, events, code):
    """The last event is the error, the peer is told, and nothing is read or said any more."""
    assert fault_of(events).code == code
    assert kinds(events)[-1] == "ConnectionFaulted"
    assert link.ours.closed
    terminated = only(link.to_peer(), h2.events.ConnectionTerminated)
    assert terminated.error_code == code
    assert terminated.additional_data
    assert link.feed(PingFrame(0, b"12345678")) == []
    link.ours.ping(b"12345678")
    assert link.ours.take_output() == b""


def assert_stream_error(link, events, stream, code):
    event = only(events, StreamReset)
    assert (event.stream, event.code, event.by_peer) == (stream, code, False)
    assert not event.refused
    assert stream.closed
    assert stream.stream_id not in link.ours.streams
    assert only(link.to_peer(), h2.events.StreamReset).error_code == code
    assert not link.ours.closed


# --- calls -----------------------------------------------------------------------------------


def test_unary_call_as_client(client):
    stream = client.ours.send_request(REQUEST_BLOCK)
    assert repr(stream) == "<H2Stream 1 open>"
    assert client.ours.sendable(stream) == 65_535
    client.ours.send_data(stream, b"question", end_stream=True)
    assert repr(stream) == "<H2Stream 1 half-closed (local)>"
    received = client.to_peer()
    assert [tuple(pair) for pair in only(received, h2.events.RequestReceived).headers] == REQUEST
    assert only(received, h2.events.DataReceived).data == b"question"
    only(received, h2.events.StreamEnded)

    client.peer.send_headers(1, RESPONSE)
    client.peer.send_data(1, b"answer")
    client.peer.send_headers(1, TRAILERS, end_stream=True)
    response, data, trailers = client.to_ours()
    assert isinstance(response, ResponseReceived)
    assert response.stream is data.stream is trailers.stream is stream
    assert response.headers.pseudo == {":status": "200"}
    assert not response.end_stream
    assert isinstance(data, DataReceived)
    assert (data.data, data.end_stream) == (b"answer", False)
    assert isinstance(trailers, TrailersReceived)
    assert trailers.headers.fields == (("grpc-status", "0"),)
    assert trailers.end_stream
    assert stream.closed
    assert repr(stream) == "<H2Stream 1 closed>"
    assert client.ours.streams == {}


def test_unary_call_as_server(server):
    server.peer.send_headers(1, REQUEST)
    server.peer.send_data(1, b"question", end_stream=True)
    request, data = server.to_ours()
    assert isinstance(request, RequestReceived)
    assert request.headers.pseudo[":path"] == "/echo.Echo/Unary"
    stream = request.stream
    assert (data.data, data.end_stream) == (b"question", True)
    assert repr(stream) == "<H2Stream 1 half-closed (remote)>"
    server.ours.send_headers(stream, RESPONSE_BLOCK)
    server.ours.send_data(stream, b"answer")
    server.ours.send_headers(stream, TRAILERS_BLOCK, end_stream=True)
    received = server.to_peer()
    assert kinds(received) == [
        "ResponseReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    assert only(received, h2.events.DataReceived).data == b"answer"
    assert stream.closed
    assert server.ours.streams == {}


def test_response_of_trailers_only(server, client):
    stream = request_from_peer(server, end_stream=True)
    server.ours.send_headers(stream, encode([*RESPONSE, *TRAILERS]), end_stream=True)
    assert kinds(server.to_peer()) == ["ResponseReceived", "StreamEnded"]

    stream = open_request(client, end_stream=True)
    client.peer.send_headers(1, [*RESPONSE, *TRAILERS], end_stream=True)
    event = only(client.to_ours(), ResponseReceived)
    assert event.end_stream
    assert stream.closed


def test_empty_header_table_is_said_once(client):
    sent = []
    for _ in range(2):
        client.ours.send_request(REQUEST_BLOCK)
        sent.append(client.ours.take_output()[9:])
    assert sent == [b"\x20" + REQUEST_BLOCK, REQUEST_BLOCK]


def test_content_larger_than_a_frame_is_cut(link):
    stream = open_stream(link)
    content = bytes(n % 251 for n in range(50_000))
    link.ours.send_data(stream, content)
    link.ours.send_data(stream, memoryview(b"more"), end_stream=True)
    received = link.to_peer()
    parts = contents(received)
    assert b"".join(parts) == content + b"more"
    assert [len(part) for part in parts] == [16_384, 16_384, 16_384, 848, 4]
    only(received, h2.events.StreamEnded)


def test_header_block_larger_than_a_frame_is_continued(link):
    stream = open_stream(link)
    link.ours.send_headers(stream, encode([("long", "x" * 20_000)]), end_stream=True)
    event = only(link.to_peer(), h2.events.TrailersReceived)
    assert len(dict(event.headers)["long"]) == 20_000


def test_header_block_of_the_peer_may_be_continued(link):
    stream = open_stream(link)
    link.peer.send_headers(stream.stream_id, [("long", "é" * 8000)], end_stream=True)
    event = only(link.to_ours(), TrailersReceived)
    assert event.headers.fields == (("long", "é".encode().decode("latin-1") * 8000),)


def test_padding_and_priority_are_removed(server):
    frame = HeadersFrame(1, REQUEST_BLOCK, flags=["END_HEADERS", "PADDED", "PRIORITY"])
    frame.pad_length, frame.depends_on, frame.stream_weight = 9, 0, 3
    data = DataFrame(1, b"content", pad_length=20, flags=["PADDED", "END_STREAM"])
    request, received = server.feed(frame, data)
    assert request.headers.pseudo[":method"] == "POST"
    assert received.data == b"content"
    # The padding is given back at once, the content when it is consumed.
    assert received.stream.unconsumed == len(b"content")


def test_informational_responses_are_skipped(client):
    stream = open_request(client)
    client.peer.send_headers(1, [(":status", "103"), ("link", "x")])
    assert client.to_ours() == []
    client.peer.send_headers(1, RESPONSE)
    assert kinds(client.to_ours()) == ["ResponseReceived"]
    assert not stream.closed


def test_response_may_end_before_the_request(client):
    stream = open_request(client)
    client.peer.send_headers(1, [*RESPONSE, *TRAILERS], end_stream=True)
    client.peer.reset_stream(1, h2.errors.ErrorCodes.NO_ERROR)
    response, reset = client.to_ours()
    assert response.end_stream
    assert isinstance(reset, StreamReset)
    assert (reset.by_peer, reset.code, reset.stream) == (True, 0, stream)


@given(st.lists(st.integers(1, 300), max_size=30), st.booleans())
def test_any_split_of_the_bytes_gives_the_same_events(cuts, client_side):
    whole, parts = (Link(client_side=client_side) for _ in range(2))
    for link in (whole, parts):
        if client_side:
            open_request(link)
        link.peer.send_headers(1, RESPONSE if client_side else REQUEST)
        link.peer.send_data(1, b"x" * 300, pad_length=17)
        link.peer.ping(b"12345678")
        link.peer.increment_flow_control_window(99)
        link.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 70_000})
        link.peer.send_headers(1, TRAILERS, end_stream=True)
    expected = [describe(e) for e in whole.feed(whole.peer.data_to_send())]
    data = parts.peer.data_to_send()
    events = []
    for size in cuts:
        events += parts.feed(data[:size])
        data = data[size:]
    events += parts.feed(data)
    assert [describe(e) for e in joined(events)] == expected
    assert parts.ours.take_output() == whole.ours.take_output()


def describe(event):
    return type(event).__name__, getattr(event, "data", None), getattr(event, "end_stream", None)


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_garbage_never_raises(data, client_side, opened):
    link = Link(client_side=client_side, opened=opened)
    for event in link.feed(data):
        if isinstance(event, ConnectionFaulted):
            assert link.ours.closed
    assert link.ours.receive_data(b"") == []


# --- preface (section 3.4) --------------------------------------------------------------------


def test_server_refuses_what_is_no_http2(step):
    link = Link(client_side=False, step=step, opened=False)
    events = link.feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert fault_of(events).code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("client_side", [True, False])
def test_first_frame_must_be_settings(step, client_side):
    link = Link(client_side=client_side, step=step, opened=False)
    magic = b"" if client_side else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    events = link.feed(magic, PingFrame(0, b"12345678"))
    assert fault_of(events).code == ErrorCode.PROTOCOL_ERROR


def test_requests_may_be_sent_before_the_peers_settings(step):
    link = Link(client_side=True, step=step, opened=False)
    link.ours.send_request(REQUEST_BLOCK, end_stream=True)
    only(link.to_peer(), h2.events.RequestReceived)


# --- connection errors -----------------------------------------------------------------------


def test_frame_larger_than_announced_is_an_error(link):
    events = link.feed(DataFrame(1, bytes((1 << 18) + 1)).serialize()[:9])
    assert_connection_error(link, events, ErrorCode.FRAME_SIZE_ERROR)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        # for a stream that is idle, or for none
        (DataFrame(9, b"x"), ErrorCode.PROTOCOL_ERROR),
        (DataFrame(2, b"x"), ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\1\0\0\0\0\0\0x", ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\0\1\4\0\0\0\0", ErrorCode.PROTOCOL_ERROR),
        (HeadersFrame(2, REQUEST_BLOCK, flags=WHOLE), ErrorCode.PROTOCOL_ERROR),
        (RstStreamFrame(9), ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\4\3\0\0\0\0\0\0\0\0\0", ErrorCode.PROTOCOL_ERROR),
        (WindowUpdateFrame(9, 1), ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\5\2\0\0\0\0\0\0\0\0\0\0", ErrorCode.PROTOCOL_ERROR),
        # for a stream, but about the connection
        (b"\0\0\x08\6\0\0\0\0\1" + bytes(8), ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\x08\7\0\0\0\0\1" + bytes(8), ErrorCode.PROTOCOL_ERROR),
        # of the wrong size
        (b"\0\0\x07\6\0\0\0\0\0" + bytes(7), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\x07\7\0\0\0\0\0" + bytes(7), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\3\3\0\0\0\0\1" + bytes(3), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\3\x08\0\0\0\0\0" + bytes(3), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\4\2\0\0\0\0\1" + bytes(4), ErrorCode.FRAME_SIZE_ERROR),
        # with too little in it, or too much padding
        (b"\0\0\4\1\x24\0\0\0\1" + bytes(4), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\6\1\x2c\0\0\0\1\2" + bytes(5), ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\1\1\x0c\0\0\0\1\1", ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\1\0\x08\0\0\0\1\1", ErrorCode.PROTOCOL_ERROR),
        # what we do not allow
        (PushPromiseFrame(1, 2, REQUEST_BLOCK, flags=WHOLE), ErrorCode.PROTOCOL_ERROR),
        # header blocks that break off
        (ContinuationFrame(1, b"", flags=WHOLE), ErrorCode.PROTOCOL_ERROR),
        (HeadersFrame(1, b"").serialize() + PingFrame(0).serialize(), ErrorCode.PROTOCOL_ERROR),
        (
            HeadersFrame(1, b"").serialize() + ContinuationFrame(3, b"", flags=WHOLE).serialize(),
            ErrorCode.PROTOCOL_ERROR,
        ),
        (
            HeadersFrame(1, b"").serialize() + b"\0\0\0\x63\0\0\0\0\0",
            ErrorCode.PROTOCOL_ERROR,
        ),
        (HeadersFrame(1, b"\xff", flags=WHOLE), ErrorCode.COMPRESSION_ERROR),
        # windows
        (WindowUpdateFrame(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_connection_errors(link, data, code):
    assert_connection_error(link, link.feed(data), code)


def test_what_came_before_an_error_still_counts(server):
    frames = [HeadersFrame(1, REQUEST_BLOCK, flags=WHOLE), WindowUpdateFrame(9, 1)]
    assert kinds(server.feed(*frames)) == ["RequestReceived", "ConnectionFaulted"]


def test_nothing_is_read_or_sent_after_close(server):
    stream = request_from_peer(server)
    server.ours.close(ErrorCode.INTERNAL_ERROR, "no \udc80 more")
    server.ours.close(ErrorCode.NO_ERROR)
    server.ours.go_away()
    server.ours.send_headers(stream, RESPONSE_BLOCK)
    server.ours.reset_stream(stream, ErrorCode.CANCEL)
    server.peer.ping(b"12345678")
    assert server.to_ours() == []
    (event,) = server.to_peer()
    assert event.error_code == ErrorCode.INTERNAL_ERROR
    assert event.last_stream_id == 1
    assert event.additional_data == b"no ? more"


# --- stream errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        [("A", "x")],
        [(":status", "200")],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("content-length", "x")],
    ],
)
def test_malformed_request_is_reset_and_never_reported(server, fields):
    server.peer.send_headers(1, fields)
    server.peer.send_data(1, b"on its way", end_stream=True)
    assert server.to_ours() == []
    (event,) = server.to_peer()
    assert event.error_code == ErrorCode.PROTOCOL_ERROR
    assert server.ours.streams == {}


def test_request_without_its_content_is_reset_and_never_reported(server):
    server.peer.send_headers(1, [*REQUEST, ("content-length", "5")], end_stream=True)
    assert server.to_ours() == []
    only(server.to_peer(), h2.events.StreamReset)


@pytest.mark.parametrize("fields", [[("a", "b")], [(":status", "101")], REQUEST])
def test_malformed_response_is_a_stream_error(client, fields):
    stream = open_request(client)
    events = client.feed(HeadersFrame(1, encode(fields), flags=WHOLE))
    assert_stream_error(client, events, stream, ErrorCode.PROTOCOL_ERROR)


def test_informational_response_may_not_end_the_stream(client):
    stream = open_request(client)
    block = encode([(":status", "103")])
    events = client.feed(HeadersFrame(1, block, flags=WHOLE + END))
    assert_stream_error(client, events, stream, ErrorCode.PROTOCOL_ERROR)


def test_content_before_the_response_is_a_stream_error(client):
    stream = open_request(client)
    events = client.feed(DataFrame(1, b"x"))
    assert_stream_error(client, events, stream, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("fields", "flags"),
    [(TRAILERS, WHOLE), ([(":status", "200")], WHOLE + END), ([("Bad", "x")], WHOLE + END)],
)
def test_malformed_trailers_are_a_stream_error(link, fields, flags):
    stream = open_stream(link)
    events = link.feed(HeadersFrame(1, encode(fields), flags=flags))
    assert_stream_error(link, events, stream, ErrorCode.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "frames",
    [
        [DataFrame(1, b"123456")],
        [DataFrame(1, b"1234", flags=END)],
        [HeadersFrame(1, TRAILERS_BLOCK, flags=WHOLE + END)],
        [DataFrame(1, b"123"), DataFrame(1, b"456")],
    ],
)
def test_content_that_differs_from_content_length_is_a_stream_error(server, frames):
    stream = request_from_peer(server, fields=[*REQUEST, ("content-length", "5")])
    assert_stream_error(server, server.feed(*frames), stream, ErrorCode.PROTOCOL_ERROR)


def test_content_as_long_as_content_length_is_right(server):
    stream = request_from_peer(server, fields=[*REQUEST, ("content-length", "5")])
    server.peer.send_data(1, b"123")
    server.peer.send_data(1, b"45", end_stream=True)
    assert b"".join(e.data for e in server.to_ours()) == b"12345"
    assert stream.remote_closed


@pytest.mark.parametrize(
    "frame", [DataFrame(1, b"x"), HeadersFrame(1, TRAILERS_BLOCK, flags=WHOLE + END)]
)
def test_frames_after_the_end_are_a_stream_error(server, frame):
    stream = request_from_peer(server, end_stream=True)
    assert_stream_error(server, server.feed(frame), stream, ErrorCode.STREAM_CLOSED)


@pytest.mark.parametrize(
    ("increment", "code"),
    [(0, ErrorCode.PROTOCOL_ERROR), (2**31 - 1, ErrorCode.FLOW_CONTROL_ERROR)],
)
def test_wrong_window_updates_of_a_stream_are_stream_errors(link, increment, code):
    stream = open_stream(link)
    data = b"\0\0\4\x08\0\0\0\0\1" + increment.to_bytes(4, "big")
    assert_stream_error(link, link.feed(data), stream, code)


# --- closed streams (section 5.1) -------------------------------------------------------------


def finished(link):
    """A stream that both sides have ended."""
    stream = open_stream(link)
    link.ours.send_headers(stream, TRAILERS_BLOCK, end_stream=True)
    link.to_peer()
    link.peer.end_stream(1)
    link.to_ours()
    assert stream.closed
    return stream


def test_content_for_a_finished_stream_is_a_stream_error_without_an_event(link):
    finished(link)
    assert link.feed(DataFrame(1, b"x")) == []
    assert link.ours.take_output() == RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()
    # Once told, the peer may have more on its way.
    assert link.feed(DataFrame(1, b"x")) == []
    assert link.ours.take_output() == b""


def test_client_resets_a_response_on_a_finished_stream(client):
    finished(client)
    assert client.feed(HeadersFrame(1, RESPONSE_BLOCK, flags=WHOLE)) == []
    assert client.ours.take_output() == RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()


def test_request_on_a_finished_or_skipped_stream_is_a_connection_error(server):
    request_from_peer(server, 5)
    events = server.feed(HeadersFrame(3, REQUEST_BLOCK, flags=WHOLE))
    assert_connection_error(server, events, ErrorCode.PROTOCOL_ERROR)


def test_window_updates_resets_and_priorities_on_finished_streams_are_ignored(link):
    finished(link)
    frames = [WindowUpdateFrame(1, 5), PriorityFrame(1, depends_on=1), RstStreamFrame(1, 8)]
    assert link.feed(*frames) == []
    assert link.ours.take_output() == b""
    assert not link.ours.closed


def test_priority_is_ignored_on_every_stream(link):
    open_stream(link)
    frames = [PriorityFrame(n, depends_on=n, stream_weight=1) for n in (1, 2, 9)]
    assert link.feed(*frames) == []
    assert link.ours.take_output() == b""


def test_sending_on_a_closed_stream_does_nothing(link):
    stream = open_stream(link)
    link.peer.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    link.to_ours()
    window = link.ours.send_window
    link.ours.send_data(stream, b"x")
    link.ours.send_headers(stream, TRAILERS_BLOCK)
    link.ours.reset_stream(stream, ErrorCode.CANCEL)
    assert (link.ours.take_output(), link.ours.send_window) == (b"", window)


@pytest.mark.parametrize(
    ("code", "refused", "name"),
    [(8, False, "CANCEL"), (7, True, "REFUSED_STREAM"), (0xBEEF, False, "error code 0xbeef")],
)
def test_reset_by_the_peer_says_whether_the_request_was_refused(link, code, refused, name):
    stream = open_stream(link)
    link.peer.reset_stream(1, code)
    event = only(link.to_ours(), StreamReset)
    assert (event.stream, event.code, event.by_peer, event.refused) == (
        stream,
        code,
        True,
        refused,
    )
    assert name in event.reason
    assert stream.closed


def test_what_is_on_its_way_on_a_stream_that_we_reset_is_dropped_and_given_back(link):
    stream = open_stream(link)
    link.peer.send_data(1, b"x" * 1000)
    link.peer.send_data(1, b"y" * 1000, pad_length=10)
    link.peer.increment_flow_control_window(10, 1)
    link.peer.send_headers(1, TRAILERS, end_stream=True)
    link.ours.reset_stream(stream, ErrorCode.CANCEL)
    link.to_peer()
    assert link.to_ours() == []
    assert link.ours.take_output() == b""
    # That was its end: one frame more is an error again.
    assert link.feed(DataFrame(1, b"x")) == []
    assert link.ours.take_output() == RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()


def test_content_that_ends_a_closed_stream_is_the_last_of_it_however_it_is_cut(link):
    stream = open_stream(link)
    link.peer.reset_stream(1)
    link.to_ours()
    assert stream.closed
    refusal = RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()
    for frame in (DataFrame(1, b"abc", flags=END), DataFrame(1, b"x")):
        assert link.feed(frame) == []
        assert link.ours.take_output() == refusal


def test_header_sections_on_their_way_on_a_stream_that_we_reset_keep_the_table_in_step(client):
    first, second = open_request(client), open_request(client)
    client.ours.reset_stream(first, ErrorCode.CANCEL)
    client.peer.send_headers(1, [*RESPONSE, ("new", "entry")])
    client.peer.end_stream(1)
    client.peer.send_headers(3, [*RESPONSE, ("new", "entry")])
    (event,) = client.to_ours()
    assert event.stream is second
    assert event.headers.fields[-1] == ("new", "entry")


@pytest.mark.parametrize("client_side", [True, False])
def test_streams_that_we_reset_still_have_a_window(step, client_side):
    settings = LocalSettings(initial_window_size=1000)
    link = Link(client_side=client_side, step=step, settings=settings)
    stream = open_stream(link)
    link.ours.reset_stream(stream, ErrorCode.CANCEL)
    link.ours.take_output()
    assert link.feed(DataFrame(1, bytes(600)), DataFrame(1, bytes(400))) == []
    events = link.feed(DataFrame(1, b"x"))
    assert_connection_error(link, events, ErrorCode.FLOW_CONTROL_ERROR)


def test_resets_that_cross_are_no_error_and_are_not_counted(link):
    stream = open_stream(link)
    link.ours.reset_stream(stream, ErrorCode.CANCEL)
    link.peer.reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    assert link.to_ours() == []
    assert link.ours.guard.resets == 0


def test_only_the_latest_resets_are_remembered(monkeypatch):
    monkeypatch.setattr("pyvider_rpcplugin.http2._connection._REMEMBERED_RESETS", 2)
    link = Link(client_side=True)
    for _ in range(3):
        link.ours.reset_stream(open_request(link), ErrorCode.CANCEL)
    link.ours.take_output()
    assert link.feed(DataFrame(3, b"x"), DataFrame(5, b"x")) == []
    assert link.ours.take_output() == b""
    assert link.feed(DataFrame(1, b"x")) == []
    assert link.ours.take_output() == RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()


def test_reset_after_the_peers_end_expects_nothing_more(server):
    stream = request_from_peer(server, end_stream=True)
    server.ours.reset_stream(stream, ErrorCode.CANCEL)
    assert only(server.to_peer(), h2.events.StreamReset).error_code == ErrorCode.CANCEL
    assert server.feed(DataFrame(1, b"x")) == []
    assert server.ours.take_output() == RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()


# --- how many streams (section 5.1.2), and which -----------------------------------------------


def test_streams_beyond_the_announced_number_are_refused(step):
    link = Link(client_side=False, step=step, settings=LocalSettings(max_concurrent_streams=2))
    frames = [HeadersFrame(n, REQUEST_BLOCK, flags=WHOLE) for n in (1, 3, 5)]
    content = DataFrame(5, b"on its way", flags=END)
    assert kinds(link.feed(*frames, content)) == ["RequestReceived", "RequestReceived"]
    assert link.ours.take_output() == RstStreamFrame(5, ErrorCode.REFUSED_STREAM).serialize()
    link.ours.reset_stream(link.ours.streams[1], ErrorCode.CANCEL)
    assert kinds(link.feed(HeadersFrame(7, REQUEST_BLOCK, flags=WHOLE))) == ["RequestReceived"]


def test_client_knows_how_many_streams_it_may_open(step):
    link = Link(
        client_side=True,
        step=step,
        peer_settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1},
    )
    assert link.ours.can_open_stream()
    stream = open_request(link)
    assert not link.ours.can_open_stream()
    link.ours.reset_stream(stream, ErrorCode.CANCEL)
    assert link.ours.can_open_stream()


def test_client_stops_when_stream_identifiers_run_out(client):
    client.ours._next_stream_id = 2**31 - 1
    assert client.ours.accepts_requests
    assert open_request(client).stream_id == 2**31 - 1
    assert not client.ours.accepts_requests


# --- PING, unknown frames -----------------------------------------------------------------------


def test_pings_are_answered_both_ways(link):
    link.peer.ping(b"question")
    assert link.to_ours() == []
    assert only(link.to_peer(), h2.events.PingAckReceived).ping_data == b"question"
    link.ours.ping(b"12345678")
    ours, _ = link.settle()
    assert only(ours, PingAcknowledged).payload == b"12345678"


def test_unknown_frames_settings_and_flags_are_ignored(link):
    frame = b"\0\0\1\x63\xff\0\0\0\1x"
    setting = b"\0\0\6\4\0\0\0\0\0\xf0\0\0\0\0\1"
    flagged = b"\0\0\x08\6\xfe\0\0\0\0" + bytes(8)
    events = link.feed(frame, setting, flagged)
    assert kinds(events) == ["SettingsReceived"]
    assert not link.ours.closed


# --- GOAWAY (section 6.8) ------------------------------------------------------------------------


def test_after_our_goaway_open_streams_go_on_and_new_ones_are_ignored(server):
    stream = request_from_peer(server)
    server.ours.go_away()
    server.ours.go_away()
    assert server.ours.goaway_sent
    output = server.ours.take_output()
    assert output == GoAwayFrame(0, last_stream_id=1).serialize()
    on_its_way = [
        HeadersFrame(3, REQUEST_BLOCK, flags=WHOLE),
        DataFrame(3, b"x" * 100),
        DataFrame(3, b"", flags=END),
        WindowUpdateFrame(3, 100),
        RstStreamFrame(3, 8),
    ]
    assert server.feed(*on_its_way) == []
    server.peer.send_data(1, b"still here", end_stream=True)
    assert only(server.to_ours(), DataReceived).stream is stream
    server.ours.send_headers(stream, encode([*RESPONSE, *TRAILERS]), end_stream=True)
    assert kinds(server.to_peer()) == ["ResponseReceived", "StreamEnded"]
    # A later connection error says the same last stream.
    server.feed(DataFrame(2, b"x"))
    assert server.ours.take_output()[9:13] == b"\0\0\0\1"


def test_frames_on_finished_streams_are_errors_after_our_goaway_too(client):
    finished(client)
    client.ours.go_away()
    client.ours.take_output()
    assert client.feed(DataFrame(1, b"x")) == []
    assert client.ours.take_output() == RstStreamFrame(1, ErrorCode.STREAM_CLOSED).serialize()


def test_goaway_of_the_server_refuses_later_streams_only(client):
    first, second = open_request(client), open_request(client)
    frame = GoAwayFrame(0, last_stream_id=1, error_code=0xB, additional_data=b"too_many_pings")
    goaway, reset = client.feed(frame)
    assert isinstance(goaway, GoAwayReceived)
    assert (goaway.last_stream_id, goaway.code, goaway.debug) == (1, 0xB, b"too_many_pings")
    assert isinstance(reset, StreamReset)
    assert (reset.stream, reset.code, reset.by_peer, reset.refused) == (second, 0xB, True, True)
    assert second.closed
    assert not client.ours.accepts_requests
    client.peer.send_headers(1, [*RESPONSE, *TRAILERS], end_stream=True)
    assert only(client.to_ours(), ResponseReceived).stream is first


def test_graceful_goaway_in_two_steps(client):
    stream = open_request(client)
    (event,) = client.feed(GoAwayFrame(0, last_stream_id=2**31 - 1))
    assert isinstance(event, GoAwayReceived)
    assert not client.ours.accepts_requests
    assert kinds(client.feed(GoAwayFrame(0, last_stream_id=1))) == ["GoAwayReceived"]
    assert not stream.closed


def test_goaway_of_a_client_leaves_its_streams(server):
    request_from_peer(server)
    server.peer.close_connection()
    (event,) = server.to_ours()
    assert (event.last_stream_id, event.code, event.debug) == (0, 0, b"")
    assert list(server.ours.streams) == [1]


# --- output --------------------------------------------------------------------------------------


def test_output_size_tells_what_waits(link):
    assert (link.ours.output_size, link.ours.take_output()) == (0, b"")
    stream = open_stream(link)
    link.ours.send_data(stream, bytes(20_000))
    link.ours.ping(b"12345678")
    size = link.ours.output_size
    assert size == len(link.ours.take_output()) == 20_000 + 2 * 9 + 17
    assert link.ours.output_size == 0


def test_small_content_is_copied_and_never_changes_the_callers(link):
    stream = open_stream(link)
    first, second = bytearray(b"first"), bytearray(b"second")
    for content in (first, memoryview(second)):
        link.ours.send_data(stream, content)
        content[:] = bytes(len(content))
    assert b"".join(contents(link.to_peer())) == b"firstsecond"
    assert bytes(first + second) == bytes(11)


def contents(events):
    """What is in each DATA frame that came."""
    return [e.data for e in events if isinstance(e, h2.events.DataReceived)]


def test_small_contents_in_a_row_share_a_frame(link):
    stream = open_stream(link)
    for part in (b"one", b"", memoryview(b"two")):
        link.ours.send_data(stream, part)
    assert link.ours.output_size == 9 + 6
    assert contents(link.to_peer()) == [b"onetwo"]
    for part in (b"three", b"four"):
        link.ours.send_data(stream, part)
    link.ours.send_data(stream, b"", end_stream=True)
    received = link.to_peer()
    assert contents(received) == [b"threefour"]
    only(received, h2.events.StreamEnded)


def test_a_frame_is_shared_with_nothing_else_and_has_an_end(client):
    first, second = open_stream(client), open_request(client)
    client.ours.send_data(first, b"before")
    client.ours.send_data(second, b"of another stream")
    client.ours.send_data(first, b"between")
    client.ours.ping(b"12345678")
    for _ in range(3):
        client.ours.send_data(first, bytes(2000))
    expected = [b"before", b"of another stream", b"between", bytes(4000), bytes(2000)]
    assert contents(client.to_peer()) == expected


def test_nothing_is_added_to_what_was_handed_out(link):
    stream = open_stream(link)
    link.ours.send_data(stream, b"a")
    link.ours.send_data(stream, b"b")
    (first,) = link.ours.take_parts()
    link.ours.send_data(stream, b"c")
    second = link.ours.take_output()
    assert (first, second) == (
        DataFrame(stream.stream_id, b"ab").serialize(),
        DataFrame(stream.stream_id, b"c").serialize(),
    )
    link.ours.send_data(stream, b"d")
    link.ours.close()
    link.ours.send_data(stream, b"e")
    link.ours.send_data(stream, b"f")
    assert contents(link.to_peer()) == [b"d"]


def test_large_content_is_handed_out_in_parts_uncopied(link):
    stream = open_stream(link)
    link.ours.remote.max_frame_size = 1 << 20
    stream.send_window = link.ours.send_window = 1 << 20
    large = bytes(200_000)
    link.ours.ping(b"12345678")
    link.ours.send_data(stream, large)
    link.ours.send_data(stream, large)
    size = link.ours.output_size
    head, first, between, second = link.ours.take_parts()
    assert first.obj is second.obj is large
    assert (len(head), len(between)) == (17 + 9, 9)
    assert sum(map(len, [head, first, between, second])) == size
    assert (link.ours.output_size, link.ours.take_parts()) == (0, [])
    link.ours.ping(b"12345678")
    (ping,) = link.ours.take_parts()
    assert ping == PingFrame(0, b"12345678").serialize()


def test_frame_beyond_the_window_is_one_stream_error_however_it_is_cut(step):
    """What follows of a frame in error is part of it, not a frame more."""
    link = Link(client_side=False, step=step, settings=LocalSettings(initial_window_size=10))
    stream = request_from_peer(link)
    events = link.feed(DataFrame(1, bytes(50)))
    assert only(events, StreamReset).code == ErrorCode.FLOW_CONTROL_ERROR
    assert stream.closed
    finished_frame = DataFrame(1, b"x")
    assert_connection_error(link, link.feed(finished_frame), ErrorCode.FLOW_CONTROL_ERROR)


def test_connection_opens_without_settings_of_ones_own():
    assert H2Connection(client_side=True).output_size == 0
    assert WindowOpened(None).stream is None
