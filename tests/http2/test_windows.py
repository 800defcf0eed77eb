"""Flow control (RFC 9113, sections 5.2 and 6.9): both ends agree on every window at any time."""

from __future__ import annotations

import h2.events
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from pyvider_rpcplugin.http2 import (
    ConnectionFaulted,
    DataReceived,
    ErrorCode,
    LocalSettings,
    RequestReceived,
    StreamReset,
    WindowOpened,
)
from tests.http2.peer import (
    REQUEST,
    REQUEST_BLOCK,
    RESPONSE,
    RESPONSE_BLOCK,
    TRAILERS_BLOCK,
    Link,
    kinds,
    only,
)

WINDOW = 1000
CONNECTION_WINDOW = 70_000
SMALL = LocalSettings(initial_window_size=WINDOW, connection_window_size=CONNECTION_WINDOW)


def open_stream(link):
    """A stream with both sides' header sections sent and nothing ended, on either side."""
    if link.peer.config.client_side:
        stream_id = link.peer.get_next_available_stream_id()
        link.peer.send_headers(stream_id, REQUEST)
        stream = only(link.to_ours(), RequestReceived).stream
        link.ours.send_headers(stream, RESPONSE_BLOCK)
        link.to_peer()
    else:
        stream = link.ours.send_request(REQUEST_BLOCK)
        link.to_peer()
        link.peer.send_headers(stream.stream_id, RESPONSE)
        link.to_ours()
    return stream


@pytest.fixture(params=["client", "server"])
def link(request, step):
    return Link(client_side=request.param == "client", step=step, settings=SMALL)


class Windows(RuleBasedStateMachine):
    """Content both ways, consumed or not, on streams that end in every way."""

    @initialize(client_side=st.booleans())
    def connect(self, client_side):
        self.link = Link(client_side=client_side, settings=SMALL)
        self.known = []  # all streams of ours that content may be due for
        self.unread = {}  # what the peer has received and not given back
        self.ended_by_peer = set()
        self.released = set()

    def settle(self):
        for event in self.link.to_peer():
            if isinstance(event, h2.events.DataReceived):
                self.unread[event.stream_id] += event.flow_controlled_length
        ours, peers = self.link.settle()
        for event in peers:
            if isinstance(event, h2.events.DataReceived):
                self.unread[event.stream_id] += event.flow_controlled_length
        assert "ConnectionFaulted" not in kinds(ours)

    def pick(self, data):
        return self.link.ours.streams[data.draw(st.sampled_from(list(self.link.ours.streams)))]

    @precondition(lambda self: len(self.link.ours.streams) < 4)
    @rule()
    def open(self):
        stream = open_stream(self.link)
        self.known.append(stream)
        self.unread[stream.stream_id] = 0

    has_streams = precondition(lambda self: self.link.ours.streams)

    @has_streams
    @rule(data=st.data(), size=st.integers(0, WINDOW), padding=st.sampled_from([None, 0, 50]))
    def peer_sends(self, data, size, padding):
        stream = self.pick(data)
        room = self.link.peer.local_flow_control_window(stream.stream_id)
        if (
            stream.stream_id not in self.ended_by_peer
            and size + (0 if padding is None else padding + 1) <= room
        ):
            self.link.peer.send_data(stream.stream_id, bytes(size), pad_length=padding)

    @has_streams
    @rule(data=st.data(), size=st.integers(0, 40_000))
    def we_send(self, data, size):
        stream = self.pick(data)
        size = min(size, self.link.ours.sendable(stream))
        if size >= 0 and not stream.local_closed:
            self.link.ours.send_data(stream, bytes(size))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), size=st.integers(0, 2 * WINDOW))
    def we_consume(self, data, size):
        self.link.ours.acknowledge(data.draw(st.sampled_from(self.known)), size)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def we_lose_interest(self, data):
        stream = data.draw(st.sampled_from(self.known))
        self.link.ours.release(stream)
        self.released.add(stream)

    @has_streams
    @rule(data=st.data())
    def peer_consumes(self, data):
        stream_id = self.pick(data).stream_id
        size, self.unread[stream_id] = self.unread[stream_id], 0
        self.link.peer.acknowledge_received_data(size, stream_id)

    @rule(initial=st.sampled_from([0, 1, 500, 65_535, 100_000]))
    def peer_changes_its_initial_window(self, initial):
        self.settle()
        self.link.peer.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: initial})

    @rule(size=st.integers(1, 100_000))
    def peer_opens_the_connection(self, size):
        self.link.peer.increment_flow_control_window(size)

    @has_streams
    @rule(data=st.data())
    def we_reset(self, data):
        # What the peer has sent and not delivered is on its way.
        self.link.ours.reset_stream(self.pick(data), ErrorCode.CANCEL)

    @has_streams
    @rule(data=st.data())
    def peer_resets(self, data):
        self.settle()
        if self.link.ours.streams:
            self.link.peer.reset_stream(self.pick(data).stream_id)
            self.settle()

    @has_streams
    @rule(data=st.data())
    def we_end(self, data):
        self.settle()
        if self.link.ours.streams:
            stream = self.pick(data)
            if not stream.local_closed:
                self.link.ours.send_headers(stream, TRAILERS_BLOCK, end_stream=True)

    @has_streams
    @rule(data=st.data())
    def peer_ends(self, data):
        self.settle()
        if self.link.ours.streams:
            stream = self.pick(data)
            if stream.stream_id not in self.ended_by_peer:
                self.link.peer.end_stream(stream.stream_id)
                self.ended_by_peer.add(stream.stream_id)

    @rule()
    def deliver(self):
        self.settle()

    @invariant()
    def nothing_is_lost(self):
        if not hasattr(self, "link"):
            return
        ours = self.link.ours
        held = sum(stream.unconsumed for stream in self.known)
        assert ours._receive_window + ours._unacknowledged + held == CONNECTION_WINDOW
        for stream in ours.streams.values():
            if not stream.remote_closed and stream not in self.released:
                assert stream.receive_window + stream.unacknowledged + stream.unconsumed == WINDOW

    def teardown(self):
        if not hasattr(self, "link"):
            return
        self.settle()
        ours, peer = self.link.ours, self.link.peer
        assert ours._receive_window == peer.outbound_flow_control_window
        assert ours.send_window == peer.inbound_flow_control_window
        for stream in ours.streams.values():
            theirs = peer.streams[stream.stream_id]
            if not stream.local_closed:
                assert stream.send_window == theirs.inbound_flow_control_window
            if not stream.remote_closed:
                assert stream.receive_window == theirs.outbound_flow_control_window
        for stream in self.known:
            ours.release(stream)
        assert ours._receive_window + ours._unacknowledged == CONNECTION_WINDOW


Windows.TestCase.settings = settings(max_examples=120, stateful_step_count=30)
TestWindows = Windows.TestCase


def test_consumed_octets_are_given_back_at_half_a_window(link):
    stream = open_stream(link)
    link.peer.send_data(1, bytes(WINDOW))
    link.to_ours()
    link.ours.acknowledge(stream, WINDOW // 2 - 1)
    assert link.ours.take_output() == b""
    link.ours.acknowledge(stream, 1)
    assert link.ours.take_output() == WindowUpdateFrame(1, WINDOW // 2).serialize()


def test_octets_can_be_given_back_only_once(link):
    stream = open_stream(link)
    link.peer.send_data(1, bytes(600))
    link.to_ours()
    link.ours.release(stream)
    link.ours.acknowledge(stream, 600)
    link.ours.release(stream)
    assert link.ours._unacknowledged == 600
    assert link.ours.take_output() == b""


def test_unread_octets_of_a_reset_stream_are_missing_until_released(link):
    stream = open_stream(link)
    link.peer.send_data(1, bytes(600))
    link.peer.reset_stream(1)
    data, reset = link.to_ours()
    assert isinstance(data, DataReceived)
    assert isinstance(reset, StreamReset)
    assert link.ours._unacknowledged == 0
    link.ours.acknowledge(stream, 200)
    link.ours.release(stream)
    assert link.ours._unacknowledged == 600


def test_peer_that_exceeds_a_streams_window_gets_a_stream_error(link):
    stream = open_stream(link)
    frames = [DataFrame(1, bytes(WINDOW)), DataFrame(1, b"x")]
    events = link.feed(*frames)
    assert only(events, StreamReset).code == ErrorCode.FLOW_CONTROL_ERROR
    # The frame in error was given back, the content before it is the reader's.
    assert (link.ours._unacknowledged, stream.unconsumed) == (1, WINDOW)


def test_peer_that_exceeds_the_connections_window_gets_a_connection_error(step):
    link = Link(client_side=False, step=step)
    link.ours._receive_window = 10
    open_stream(link)
    events = link.feed(DataFrame(1, bytes(11)))
    assert only(events, ConnectionFaulted).fault.code == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("client_side", [True, False])
def test_until_our_settings_are_acknowledged_the_peer_may_count_with_the_default(client_side):
    link = Link(client_side=client_side, settings=SMALL, opened=False)
    peers_settings = link.peer.data_to_send()
    link.feed(peers_settings)
    if client_side:
        link.ours.send_request(REQUEST_BLOCK)
    block = RESPONSE_BLOCK if client_side else REQUEST_BLOCK
    link.feed(HeadersFrame(1, block, flags=["END_HEADERS"]))
    stream = link.ours.streams[1]
    assert kinds(link.feed(DataFrame(1, bytes(60_000)))) == ["DataReceived"]
    assert link.feed(SettingsFrame(0, flags=["ACK"])) == []
    assert stream.receive_window == WINDOW - 60_000
    link.ours.acknowledge(stream, 60_000)
    assert stream.receive_window == WINDOW
    events = link.feed(DataFrame(1, bytes(WINDOW + 1)))
    assert only(events, StreamReset).code == ErrorCode.FLOW_CONTROL_ERROR


def test_peer_may_close_the_window_below_zero_and_open_it_again(link):
    stream = open_stream(link)
    link.ours.send_data(stream, bytes(60_000))
    assert kinds(link.feed(SettingsFrame(0, settings={4: 10_000}))) == ["SettingsReceived"]
    assert link.ours.sendable(stream) == 10_000 - 60_000
    settled, opened = link.feed(SettingsFrame(0, settings={4: 60_001}))
    assert kinds([settled, opened]) == ["SettingsReceived", "WindowOpened"]
    assert opened.stream is None
    assert link.ours.sendable(stream) == 1


def test_initial_window_that_makes_a_window_overflow_is_a_connection_error(link):
    open_stream(link)
    link.feed(WindowUpdateFrame(1, 2**31 - 1 - 65_535))
    events = link.feed(SettingsFrame(0, settings={4: 65_536}))
    assert only(events, ConnectionFaulted).fault.code == ErrorCode.FLOW_CONTROL_ERROR


def test_window_updates_say_what_they_open(link):
    stream = open_stream(link)
    events = link.feed(WindowUpdateFrame(1, 10), WindowUpdateFrame(0, 20))
    assert [e.stream for e in events if isinstance(e, WindowOpened)] == [stream, None]
    assert stream.send_window == 65_545
    assert link.ours.send_window == 65_555
    assert link.ours.sendable(stream) == 65_545


def test_smaller_window_counts(link):
    stream = open_stream(link)
    link.ours.send_window = 5
    assert link.ours.sendable(stream) == 5
