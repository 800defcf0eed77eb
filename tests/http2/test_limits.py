from __future__ import annotations

import h2.errors
import h2.events
import hpack
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from pyvider_rpcplugin.http2 import (
    ConnectionFault,
    ConnectionFaulted,
    DataReceived,
    ErrorCode,
    Limits,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from pyvider_rpcplugin.http2._limits import FloodGuard
from tests.http2.peer import (
    REQUEST,
    REQUEST_BLOCK,
    RESPONSE,
    RESPONSE_BLOCK,
    TRAILERS,
    TRAILERS_BLOCK,
    Link,
    encode,
    only,
)

WHOLE = ["END_HEADERS"]
CALM = ErrorCode.ENHANCE_YOUR_CALM


@pytest.fixture(params=["client", "server"])
def link(request):
    return Link(client_side=request.param == "client")


@pytest.fixture
def client():
    return Link(client_side=True)


@pytest.fixture
def server():
    return Link(client_side=False)


def open_stream(link):
    """A stream with both sides' header sections sent and nothing ended, on either side."""
    if link.peer.config.client_side:
        stream_id = link.peer.get_next_available_stream_id()
        link.peer.send_headers(stream_id, REQUEST)
        stream = only(link.to_ours(), RequestReceived).stream
        link.ours.send_headers(stream, RESPONSE_BLOCK)
    else:
        stream = link.ours.send_request(REQUEST_BLOCK)
        link.to_peer()
        link.peer.send_headers(stream.stream_id, RESPONSE)
        link.to_ours()
    link.to_peer()
    return stream


def assert_calmed(link, events, *words):
    """The connection ended with ENHANCE_YOUR_CALM, for the reason that has `words` in it."""
    fault = only(events, ConnectionFaulted).fault
    assert fault.code == CALM
    assert all(word in fault.reason for word in words), fault.reason
    goaway = link.ours.take_output()[-(17 + len(fault.reason)) :]
    assert goaway[13:17] == CALM.to_bytes(4, "big")
    assert goaway[17:] == fault.reason.encode()


# --- the guard -------------------------------------------------------------------------------


def test_guard_counts_between_two_refreshes():
    guard = FloodGuard(Limits(idle_frames=3, resets=2))
    assert not guard.counting
    for _ in range(3):
        guard.count_idle("this")
    assert guard.counting
    guard.refresh()
    assert not guard.counting
    for _ in range(3):
        guard.count_idle("this")
    with pytest.raises(ConnectionFault, match="this"):
        guard.count_idle("this")
    guard.refresh()
    guard.count_reset()
    assert guard.counting
    guard.count_reset()
    with pytest.raises(ConnectionFault, match="reset"):
        guard.count_reset()


def test_useful_frames_pay_for_idle_ones_in_advance_but_not_without_bound():
    guard = FloodGuard(Limits(idle_frames=2))
    for _ in range(10):
        guard.useful()
    guard.refresh()
    for _ in range(12):
        guard.count_idle("this")
    with pytest.raises(ConnectionFault):
        guard.count_idle("this")
    guard.useful(10_000)
    for _ in range(202):
        guard.count_idle("this")
    with pytest.raises(ConnectionFault):
        guard.count_idle("this")


def test_completed_streams_pay_for_resets_but_not_in_advance():
    guard = FloodGuard(Limits(resets=1))
    guard.completed()
    guard.count_reset()
    guard.completed()
    guard.count_reset()
    with pytest.raises(ConnectionFault):
        guard.count_reset()


# --- attacks ---------------------------------------------------------------------------------


def headers_of(block, stream_id=1):
    return HeadersFrame(stream_id, block, flags=WHOLE)


def assert_stream_calmed(link, events, *words):
    """The stream of the one event was reset with ENHANCE_YOUR_CALM, and nothing else happened."""
    event = only(events, StreamReset)
    assert (event.code, event.by_peer) == (CALM, False)
    assert all(word in event.reason for word in words), event.reason
    assert link.ours.take_output() == RstStreamFrame(event.stream.stream_id, CALM).serialize()


LONG_LIST = encode([(f"name-{n}", "x" * 1000) for n in range(65)])
MANY_FIELDS = encode([("a", "b")] * 513)


@pytest.mark.parametrize(
    ("block", "words"),
    [(LONG_LIST, ("header list of", "65536")), (MANY_FIELDS, ("514 header fields",))],
)
def test_header_section_over_a_bound_costs_its_stream_and_no_other(link, block, words):
    open_stream(link)
    other = open_stream(link)
    link.ours.take_output()
    # What it puts into the table is used by the next one.
    block += hpack.Encoder().encode([("last", "entry")])
    section = HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"])
    assert_stream_calmed(link, link.feed(section), *words)
    trailers = HeadersFrame(other.stream_id, b"\xbe", flags=["END_HEADERS", "END_STREAM"])
    event = only(link.feed(trailers), TrailersReceived)
    assert event.stream is other
    assert event.headers.fields == (("last", "entry"),)


@pytest.mark.parametrize("block", [LONG_LIST, MANY_FIELDS])
def test_request_with_a_header_section_over_a_bound_is_refused(server, block):
    assert server.feed(headers_of(block)) == []
    assert server.ours.take_output() == RstStreamFrame(1, CALM).serialize()
    assert isinstance(server.feed(headers_of(REQUEST_BLOCK, 3))[0], RequestReceived)


def test_flood_of_header_sections_over_a_bound(server):
    flood = [headers_of(MANY_FIELDS, 2 * n + 1) for n in range(Limits().resets // 50 + 1)]
    assert_calmed(server, server.feed(*flood), "streams were reset")


def test_header_list_far_over_the_bound(link):
    open_stream(link)
    block = hpack.Encoder().encode([("name", "x" * 3000)]) + b"\xbe" * 100
    assert_calmed(link, link.feed(headers_of(block)), "header list")


def test_header_block_that_is_too_large(link):
    open_stream(link)
    assert_calmed(link, link.feed(headers_of(bytes(131_073))), "131073 octets")


def test_continuation_flood(link):
    open_stream(link)
    frames = [HeadersFrame(1, b"")] + [ContinuationFrame(1, b"")] * 20
    assert_calmed(link, link.feed(*frames), "18 frames")


def test_continuations_that_are_too_large_together(link):
    open_stream(link)
    frames = [HeadersFrame(1, bytes(16_384))] + [ContinuationFrame(1, bytes(16_384))] * 8
    assert_calmed(link, link.feed(*frames), "147456 octets")


def test_hpack_bomb(link):
    open_stream(link)
    block = hpack.Encoder().encode([("bomb", "x" * 4000)]) + b"\xbe" * 1000
    assert_calmed(link, link.feed(headers_of(block)), "header list")


def test_settings_frame_with_too_many_entries(link):
    size = 129 * 6
    frame = size.to_bytes(3, "big") + b"\4\0\0\0\0\0" + b"\0\x0a\0\0\0\1" * 129
    assert_calmed(link, link.feed(frame), "129 settings")


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (PingFrame(0, b"12345678"), "PING"),
        (PingFrame(0, b"12345678", flags=["ACK"]), "PING"),
        (SettingsFrame(0), "SETTINGS"),
        (SettingsFrame(0, settings={4: 70_000}), "SETTINGS"),
        (SettingsFrame(0, flags=["ACK"]), "SETTINGS"),
        (PriorityFrame(1, depends_on=0, stream_weight=1), "PRIORITY"),
        (WindowUpdateFrame(0, 1), "WINDOW_UPDATE"),
        (WindowUpdateFrame(1, 1000), "WINDOW_UPDATE"),
        (DataFrame(1, b""), "empty DATA"),
        (DataFrame(1, b"", pad_length=9, flags=["PADDED"]), "empty DATA"),
        (b"\0\0\0\x63\0\0\0\0\0", "unknown type"),
        (b"\0\0\x08\7\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0", "GOAWAY"),
    ],
)
def test_flood_of_frames_that_do_nothing(link, frame, word):
    open_stream(link)
    flood = [frame] * (Limits().idle_frames + 10)
    assert_calmed(link, link.feed(*flood), "frames that do nothing", word)


def test_flood_of_informational_responses(client):
    client.ours.send_request(REQUEST_BLOCK)
    client.to_peer()
    flood = [headers_of(encode([(":status", "103")]))] * 1010
    assert_calmed(client, client.feed(*flood), "informational")


def test_flood_of_header_sections_on_a_stream_that_we_reset(link):
    link.ours.reset_stream(open_stream(link), ErrorCode.CANCEL)
    flood = [headers_of(TRAILERS_BLOCK)] * 1010
    assert_calmed(link, link.feed(*flood), "HEADERS on a closed stream")


def test_flood_of_empty_content_on_a_stream_that_we_reset(link):
    link.ours.reset_stream(open_stream(link), ErrorCode.CANCEL)
    assert_calmed(link, link.feed(*[DataFrame(1, b"")] * 1010), "empty DATA")


def test_rapid_reset(server):
    flood = []
    for n in range(Limits().resets + 1):
        flood += [headers_of(REQUEST_BLOCK, 2 * n + 1), RstStreamFrame(2 * n + 1, 8)]
    assert_calmed(server, server.feed(*flood), "streams were reset")


@pytest.mark.parametrize(
    "offence",
    [
        lambda n: b"\0\0\4\x08\0" + n.to_bytes(4, "big") + bytes(4),  # WINDOW_UPDATE of 0
        lambda n: headers_of(TRAILERS_BLOCK, n).serialize(),
        lambda n: RstStreamFrame(n, 8).serialize() + DataFrame(n, b"x").serialize(),
    ],
    ids=["window", "trailers", "closed"],
)
def test_rapid_reset_by_making_us_reset(server, offence):
    flood = []
    for n in range(Limits().resets + 1):
        flood += [headers_of(REQUEST_BLOCK, 2 * n + 1), offence(2 * n + 1)]
    assert_calmed(server, server.feed(*flood), "streams were reset")


def test_flood_of_malformed_requests(server):
    block = encode([(":method", "GET")])
    flood = [headers_of(block, 2 * n + 1) for n in range(Limits().resets + 1)]
    assert_calmed(server, server.feed(*flood), "streams were reset")


def test_flood_of_requests_after_our_goaway(server):
    server.ours.go_away()
    flood = [headers_of(REQUEST_BLOCK, 2 * n + 1) for n in range(Limits().resets + 1)]
    assert_calmed(server, server.feed(*flood), "streams were reset")


@pytest.mark.parametrize("which", ["stream", "connection"])
def test_windows_that_let_only_crumbs_through(which):
    link = Link(client_side=False)
    stream = open_stream(link)
    crumbs = 0
    if which == "stream":
        link.feed(SettingsFrame(0, settings={4: 0}))
    else:
        while link.ours.send_window:
            link.ours.send_data(stream, bytes(min(16_384, link.ours.send_window)))
        link.feed(WindowUpdateFrame(1, 1 << 20))
    link.ours.guard.idle = 0
    events = []
    while not link.ours.closed:
        events = link.feed(WindowUpdateFrame(1 if which == "stream" else 0, 1))
        if link.ours.sendable(stream) > 0:
            link.ours.send_data(stream, b"x")
            crumbs += 1
    assert_calmed(link, events, "WINDOW_UPDATE")
    assert crumbs <= Limits().idle_frames


# --- honest peers ----------------------------------------------------------------------------


def test_peer_that_gives_back_each_small_message_is_not_hit(client):
    """On the stream and on the connection, in one burst long after all was sent."""
    stream = open_stream(client)
    for _ in range(1000):
        client.ours.send_data(stream, b"x" * 37)
    received = [e for e in client.to_peer() if isinstance(e, h2.events.DataReceived)]
    assert sum(event.flow_controlled_length for event in received) == 37_000
    for _ in range(1000):
        client.feed(WindowUpdateFrame(0, 37), WindowUpdateFrame(1, 37))
    assert not client.ours.closed
    assert client.ours.guard.idle <= 0


def test_peer_that_estimates_bandwidth_is_not_hit(server):
    """Like grpc-go: a PING and a larger window now and then while content comes in."""
    stream = open_stream(server)
    for number in range(3000):
        server.ours.send_data(stream, b"x" * 37)
        for event in server.to_peer():
            if isinstance(event, h2.events.DataReceived):
                server.peer.acknowledge_received_data(event.flow_controlled_length, 1)
        server.peer.ping(number.to_bytes(8, "big"))
        if number % 10 == 0:
            server.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535 + number})
        server.settle()
    assert not server.ours.closed


def test_many_cancelled_and_completed_calls_are_not_hit(server):
    for number in range(8000):
        stream_id = 2 * number + 1
        frames = [headers_of(REQUEST_BLOCK, stream_id)]
        if number % 2:
            frames.append(RstStreamFrame(stream_id, 8))
        else:
            frames.append(DataFrame(stream_id, b"x" * 10, flags=["END_STREAM"]))
        event = server.feed(*frames)[0]
        assert isinstance(event, RequestReceived)
        server.ours.send_headers(event.stream, encode([*RESPONSE, *TRAILERS]), end_stream=True)
        server.ours.take_output()
    assert not server.ours.closed


def test_client_that_cancels_many_calls_forgives_what_is_on_its_way(client):
    for _ in range(3000):
        stream = client.ours.send_request(REQUEST_BLOCK, end_stream=True)
        client.ours.reset_stream(stream, ErrorCode.CANCEL)
    client.ours.take_output()
    for n in range(3000):
        frames = [
            headers_of(RESPONSE_BLOCK, 2 * n + 1),
            DataFrame(2 * n + 1, b"x" * 10),
            HeadersFrame(2 * n + 1, TRAILERS_BLOCK, flags=["END_HEADERS", "END_STREAM"]),
        ]
        assert client.feed(*frames) == []
    assert not client.ours.closed
    assert client.ours.take_output() == b""


def test_small_messages_on_their_way_on_a_cancelled_stream_are_not_hit(client):
    client.ours.reset_stream(open_stream(client), ErrorCode.CANCEL)
    client.ours.take_output()
    assert client.feed(*[DataFrame(1, b"x" * 37)] * 20_000) == []
    assert not client.ours.closed


def test_client_may_see_any_number_of_its_streams_reset(client):
    for n in range(Limits().resets + 10):
        client.ours.send_request(REQUEST_BLOCK, end_stream=True)
        event = only(client.feed(RstStreamFrame(2 * n + 1, 7)), StreamReset)
        assert event.refused
    assert not client.ours.closed


def test_requests_on_their_way_at_our_goaway_are_not_hit(server):
    server.ours.go_away()
    for n in range(1500):
        frames = [headers_of(REQUEST_BLOCK, 2 * n + 1), DataFrame(2 * n + 1, b"x" * 37)]
        assert server.feed(*frames, DataFrame(2 * n + 1, b"", flags=["END_STREAM"])) == []
    assert not server.ours.closed


def test_upload_of_small_messages_is_not_hit(server):
    stream = open_stream(server)
    for _ in range(100):
        for event in server.feed(*[DataFrame(1, b"x" * 7)] * 100):
            assert isinstance(event, DataReceived)
            server.ours.acknowledge(stream, len(event.data))
    assert not server.ours.closed
