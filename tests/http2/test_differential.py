"""The same frames into our connection and into one of `h2`, legal and illegal, in any split.

After each frame both must agree on what it was (accepted, a stream error, a connection error) and
on every stream and window. Where `h2` says otherwise than RFC 9113, `KNOWN` says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import h2.events
import h2.exceptions
import hpack
import pytest
from h2.settings import SettingCodes, Settings
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    SettingsFrame,
)
from hypothesis import given, settings, strategies as st

from pyvider_rpcplugin.http2 import (
    ConnectionFaulted,
    ErrorCode,
    H2Connection,
    LocalSettings,
    RequestReceived,
)
from tests.http2.peer import (
    REQUEST,
    REQUEST_BLOCK,
    RESPONSE,
    RESPONSE_BLOCK,
    TRAILERS_BLOCK,
    encode,
    h2_connection,
)

WINDOW = 1000
CONNECTION_WINDOW = 70_000
SETTINGS = LocalSettings(
    initial_window_size=WINDOW,
    connection_window_size=CONNECTION_WINDOW,
    max_frame_size=16_384,
    max_concurrent_streams=3,
)

# What the frames are made of.
CONTENT_LENGTH = ("content-length", "5")
BLOCKS = {
    "request": REQUEST_BLOCK,
    "request of 5 octets": encode([*REQUEST, CONTENT_LENGTH]),
    "request in the table": hpack.Encoder().encode([*REQUEST, ("new", "entry")]),
    "response": RESPONSE_BLOCK,
    "response of 5 octets": encode([*RESPONSE, CONTENT_LENGTH]),
    "informational": encode([(":status", "103")]),
    "trailers": TRAILERS_BLOCK,
    "bad name": encode([*REQUEST, ("Bad", "x")]),
    "no path": encode([pair for pair in REQUEST if pair[0] != ":path"]),
    "connection-specific": encode([*RESPONSE, ("connection", "close")]),
    "updates": b"\x20" * 20 + RESPONSE_BLOCK,
    "undecodable": b"\xff\xff\xff\xff\xff\xff\xff",
}
STREAMS = [0, 1, 2, 3, 4, 5, 7, 9]


def raw(kind, flags, stream_id, payload):
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big")
    return head + payload


def flags_of(end_stream):
    return ["END_HEADERS", "END_STREAM"] if end_stream else ["END_HEADERS"]


def headers(name, stream_id, end_stream, how):
    """A header block: as it is, padded, with a priority, or in two frames."""
    block = BLOCKS[name]
    if how == "continued":
        first = HeadersFrame(stream_id or 1, block[:5], flags=flags_of(end_stream)[1:])
        second = ContinuationFrame(stream_id or 1, block[5:], flags=["END_HEADERS"])
        return first.serialize() + second.serialize()
    frame = HeadersFrame(stream_id or 1, block, flags=flags_of(end_stream))
    if how == "padded":
        frame.flags.add("PADDED")
        frame.pad_length = 7
    elif how == "priority":
        frame.flags.add("PRIORITY")
        frame.stream_weight = 5
    return frame.serialize()


def data(stream_id, size, padding, end_stream):
    flags = ["END_STREAM"] if end_stream else []
    if padding is not None:
        flags.append("PADDED")
    return DataFrame(stream_id or 1, b"x" * size, pad_length=padding or 0, flags=flags).serialize()


# Frames of a kind that their own makers do not make.
ODD = [
    ("SETTINGS ack", 0, SettingsFrame(0, flags=["ACK"]).serialize()),
    ("SETTINGS", 0, raw(4, 1, 0, bytes(6))),
    ("SETTINGS", 0, raw(4, 0, 0, bytes(5))),
    ("SETTINGS", 0, raw(4, 0, 1, b"")),
    ("PING", 0, PingFrame(0, b"12345678").serialize()),
    ("PING", 0, PingFrame(0, b"12345678", flags=["ACK"]).serialize()),
    ("PING", 0, raw(6, 0, 0, bytes(7))),
    ("PING", 0, raw(6, 0, 1, bytes(8))),
    ("GOAWAY", 0, raw(7, 0, 0, bytes(7))),
    ("GOAWAY", 0, raw(7, 0, 1, bytes(8))),
    ("unknown", 0, raw(0x63, 0xFF, 0, b"x")),
    ("unknown", 0, raw(0x63, 0xFF, 5, b"")),
    ("RST_STREAM", 1, raw(3, 0, 1, bytes(3))),
    ("WINDOW_UPDATE", 1, raw(8, 0, 1, bytes(5))),
    ("PRIORITY of 4 octets", 1, raw(2, 0, 1, bytes(4))),
    ("CONTINUATION", 1, ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize()),
    ("interrupted", 1, HeadersFrame(1, b"").serialize() + PingFrame(0).serialize()),
    (
        "PUSH_PROMISE",
        1,
        PushPromiseFrame(1, 2, REQUEST_BLOCK, flags=["END_HEADERS"]).serialize(),
    ),
    ("DATA", 1, raw(0, 8, 1, b"\1")),
    ("DATA", 1, raw(0, 8, 1, b"")),
    ("DATA", 0, raw(0, 0, 0, b"x")),
    ("HEADERS", 0, raw(1, 4, 0, REQUEST_BLOCK)),
    ("too large", 1, raw(0, 0, 1, bytes(16_385))),
]

# An action is a label, the stream it is about, and its bytes; or, from our side, a name alone.
stream_ids = st.sampled_from(STREAMS)
frames = st.one_of(
    st.builds(
        lambda name, i, end, how: (f"HEADERS ({name})", i or 1, headers(name, i, end, how)),
        st.sampled_from(list(BLOCKS)),
        stream_ids,
        st.booleans(),
        st.sampled_from(["plain", "padded", "priority", "continued"]),
    ),
    st.builds(
        lambda i, size, padding, end: ("DATA", i or 1, data(i, size, padding, end)),
        stream_ids,
        st.sampled_from([0, 1, 3, 5, 6, 900, 1001]),
        st.sampled_from([None, None, 0, 50]),
        st.booleans(),
    ),
    st.builds(
        lambda i, code: ("RST_STREAM", i, raw(3, 0, i, code.to_bytes(4, "big"))),
        stream_ids,
        st.sampled_from([0, 7, 8, 99]),
    ),
    st.builds(
        lambda i, n: (
            "WINDOW_UPDATE of 0" if n == 0 else "WINDOW_UPDATE",
            i,
            raw(8, 0, i, n.to_bytes(4, "big")),
        ),
        stream_ids,
        st.sampled_from([0, 1, 5000, 2**31 - 1]),
    ),
    st.builds(
        lambda i, on: (
            "PRIORITY on itself" if (i or 1) == on else "PRIORITY",
            i or 1,
            PriorityFrame(i or 1, depends_on=on, stream_weight=1).serialize(),
        ),
        stream_ids,
        stream_ids,
    ),
    st.builds(
        lambda values: ("SETTINGS", 0, SettingsFrame(0, settings=values).serialize()),
        st.dictionaries(
            st.sampled_from([1, 2, 3, 4, 5, 6]),
            st.sampled_from([0, 1, 2, 100, 16_384, 70_000, 2**31 - 1, 2**31]),
            max_size=2,
        ),
    ),
    st.sampled_from(ODD),
)
own = st.sampled_from(["respond", "end", "reset", "send"]).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from([1, 3, 5]))
)
actions = st.lists(st.one_of(frames, frames, frames, own), min_size=1, max_size=14)


class Pair:
    """Our connection and one of `h2` in the same role, fed with the same."""

    def __init__(self, *, client_side):
        self.client_side = client_side
        self.ours = H2Connection(client_side=client_side, settings=SETTINGS)
        self.theirs = h2_connection(client_side=client_side)
        self.theirs.config.header_encoding = None  # it does not survive what is no UTF-8
        self.theirs.local_settings = Settings(
            client=client_side,
            initial_values={
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_FRAME_SIZE: SETTINGS.max_frame_size,
                SettingCodes.MAX_CONCURRENT_STREAMS: SETTINGS.max_concurrent_streams,
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
            },
        )
        self.theirs.max_inbound_frame_size = SETTINGS.max_frame_size
        self.streams = {}
        self.ours.initiate()
        self.theirs.initiate_connection()
        self.theirs.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        magic = b"" if client_side else b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        preface = magic + SettingsFrame(0).serialize() + SettingsFrame(0, flags=["ACK"]).serialize()
        self.feed_ours([preface])
        self.feed_theirs(preface)
        if client_side:
            for end_stream in (False, True, False):
                stream = self.ours.send_request(REQUEST_BLOCK, end_stream=end_stream)
                self.streams[stream.stream_id] = stream
                self.theirs.send_headers(stream.stream_id, REQUEST, end_stream=end_stream)
            self.act("reset", 5)
        self.ours.take_output()
        self.theirs.data_to_send()

    def state(self, stream_id):
        """What the stream is, as we see it."""
        if stream_id == 0:
            return "connection"
        if stream_id in self.ours._on_their_way:
            return "reset by us"
        stream = self.streams.get(stream_id)
        if stream is None:
            return "idle" if self.ours._is_idle(stream_id) else "closed"
        if stream.closed:
            return "closed"
        if stream.remote_closed:
            return "half-closed (remote)"
        answered = "" if stream.headers_received else ", no header section yet"
        return ("half-closed (local)" if stream.local_closed else "open") + answered

    def feed_ours(self, parts):
        for part in parts:
            for event in self.ours.receive_data(part):
                if isinstance(event, RequestReceived):
                    self.streams[event.stream.stream_id] = event.stream
                if isinstance(event, ConnectionFaulted):
                    return "connection error"
        return outcome(self.ours.take_output())

    def feed_theirs(self, data):
        try:
            for event in self.theirs.receive_data(data):
                if not isinstance(event, h2.events.DataReceived):
                    continue
                padding = event.flow_controlled_length - len(event.data)
                if padding and event.stream_id in self.theirs.streams:
                    self.theirs.acknowledge_received_data(padding, event.stream_id)
        except h2.exceptions.ProtocolError:
            return "connection error"
        return outcome(self.theirs.data_to_send())

    def act(self, name, stream_id):
        """What the owner of both does, if the stream is in a state for it."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.closed:
            return
        if name == "reset":
            self.ours.reset_stream(stream, ErrorCode.CANCEL)
            self.theirs.reset_stream(stream_id, ErrorCode.CANCEL)
        elif stream.local_closed:
            pass
        elif name == "respond":
            if not self.client_side and stream.owner is None:
                stream.owner = "responded"
                self.ours.send_headers(stream, RESPONSE_BLOCK)
                self.theirs.send_headers(stream_id, RESPONSE)
        elif self.client_side or stream.owner is not None:
            size = max(min(3, self.ours.sendable(stream)), 0)
            self.ours.send_data(stream, b"x" * size, end_stream=name == "end")
            self.theirs.send_data(stream_id, b"x" * size, end_stream=name == "end")
        self.ours.take_output()
        self.theirs.data_to_send()

    def compare_states(self):
        ours, theirs = self.ours, self.theirs
        open_there = {i: s for i, s in theirs.streams.items() if not s.closed}
        assert sorted(ours.streams) == sorted(open_there)
        for stream_id, stream in ours.streams.items():
            other = open_there[stream_id]
            if not stream.local_closed:
                assert stream.send_window == other.outbound_flow_control_window
            if not stream.remote_closed:
                manager = other._inbound_window_manager
                assert (
                    stream.receive_window + stream.unacknowledged
                    == manager.current_window_size + manager._bytes_processed
                )
        assert ours.send_window == theirs.outbound_flow_control_window
        manager = theirs._inbound_flow_control_window_manager
        assert (
            ours._receive_window + ours._unacknowledged
            == manager.current_window_size + manager._bytes_processed
        )
        assert ours.remote.max_frame_size == theirs.max_outbound_frame_size


def outcome(output):
    """What the RST_STREAM frames in `output` say."""
    while output:
        length = int.from_bytes(output[:3], "big")
        if output[3] == 3:
            return "stream error"
        output = output[9 + length :]
    return "accepted"


class Known(NamedTuple):
    """A difference: the frame, the state of its stream (both by how they begin), what it is to us
    and to h2, the section of RFC 9113 that is for us, and an example (the last frame is it)."""

    frame: str
    state: str
    ours: str
    theirs: str
    section: str
    client_side: bool
    example: list[tuple[Any, ...]]


CONNECTION, STREAM, ACCEPTED = "connection error", "stream error", "accepted"
SERVER, CLIENT = False, True


def H(name, stream_id=1, end_stream=False):
    return f"HEADERS ({name})", stream_id, headers(name, stream_id, end_stream, "plain")


def D(size, stream_id=1, end_stream=False):
    return "DATA", stream_id, data(stream_id, size, None, end_stream)


def W0(stream_id=1):
    return "WINDOW_UPDATE of 0", stream_id, raw(8, 0, stream_id, bytes(4))


def R(stream_id):
    return "RST_STREAM", stream_id, raw(3, 0, stream_id, bytes(4))


def W1(stream_id):
    return "WINDOW_UPDATE", stream_id, raw(8, 0, stream_id, b"\0\0\0\1")


WIDEST = "SETTINGS", 0, SettingsFrame(0, settings={4: 2**31 - 1}).serialize()
OPEN, ENDED = H("request"), H("request", end_stream=True)
ITSELF = "PRIORITY on itself", 9, PriorityFrame(9, depends_on=9, stream_weight=1).serialize()
FINISHED = [ENDED, ("respond", 1), ("end", 1)]

KNOWN = [
    Known("PRIORITY on itself", "", ACCEPTED, CONNECTION, "5.3.2", SERVER, [ITSELF]),
    Known("RST_STREAM", "idle", CONNECTION, ACCEPTED, "6.4", CLIENT, [R(9)]),
    # A server opens no streams.
    Known("HEADERS", "idle", CONNECTION, ACCEPTED, "5.1.1, 8.4", CLIENT, [H("request", 2)]),
    # A stream error suffices, and spares the other calls.
    Known("HEADERS", "idle", STREAM, CONNECTION, "8.1.1", SERVER, [H("no path")]),
    Known(
        "HEADERS",
        "idle",
        STREAM,
        CONNECTION,
        "5.1.2: too many streams",
        SERVER,
        [H("request", 1), H("request", 3), H("request", 5), H("request", 7)],
    ),
    Known("HEADERS", "open", STREAM, CONNECTION, "8.1.1", SERVER, [OPEN, H("trailers")]),
    Known(
        "HEADERS",
        "half-closed (r",
        STREAM,
        CONNECTION,
        "5.1",
        CLIENT,
        [H("response", 1, True), H("informational")],
    ),
    Known("HEADERS", "half-closed (l", STREAM, CONNECTION, "8.1.1", CLIENT, [H("request", 3)]),
    Known("DATA", "open", STREAM, CONNECTION, "6.9.1", SERVER, [OPEN, D(1001)]),
    Known("DATA", "half-closed (l", STREAM, CONNECTION, "8.1", CLIENT, [D(1, 3)]),
    Known("WINDOW_UPDATE of 0", "open", STREAM, CONNECTION, "6.9", SERVER, [OPEN, W0()]),
    Known("WINDOW_UPDATE of 0", "half-", STREAM, CONNECTION, "6.9", SERVER, [ENDED, W0()]),
    # Two updates of the table's size are enough.
    Known("HEADERS (updates", "", CONNECTION, ACCEPTED, "10.5", CLIENT, [H("updates")]),
    Known("HEADERS (updates", "", CONNECTION, STREAM, "10.5", CLIENT, [H("updates", 5)]),
    # The window of a stream that is no more.
    Known("SETTINGS", "", ACCEPTED, CONNECTION, "6.9.2", CLIENT, [W1(3), ("reset", 3), WIDEST]),
    # Content that never comes.
    Known(
        "HEADERS (request of 5",
        "idle",
        STREAM,
        ACCEPTED,
        "8.1.1",
        SERVER,
        [H("request of 5 octets", end_stream=True)],
    ),
    Known(
        "HEADERS",
        "open",
        STREAM,
        ACCEPTED,
        "8.1.1",
        CLIENT,
        [H("response of 5 octets"), H("trailers", end_stream=True)],
    ),
    Known(
        "HEADERS",
        "half-closed (l",
        STREAM,
        ACCEPTED,
        "8.1.1",
        CLIENT,
        [H("response of 5 octets", 3), H("trailers", 3, end_stream=True)],
    ),
    # What came too late for a stream.
    Known(
        "HEADERS",
        "closed",
        STREAM,
        CONNECTION,
        "5.1",
        CLIENT,
        [H("response", 3, True), H("response", 3)],
    ),
    Known(
        "HEADERS",
        "closed",
        CONNECTION,
        STREAM,
        "5.1.1",
        SERVER,
        [OPEN, R(1), H("request", 1)],
    ),
    Known("WINDOW_UPDATE of 0", "closed", ACCEPTED, CONNECTION, "5.1", SERVER, [*FINISHED, W0()]),
    # What is on its way on a stream that we reset: one RST_STREAM is enough, the rest is discarded.
    Known("DATA", "reset by us", ACCEPTED, STREAM, "5.4.2", CLIENT, [D(1, 5)]),
    Known("DATA", "reset by us", CONNECTION, STREAM, "6.9.1", CLIENT, [D(1001, 5)]),
    Known("HEADERS", "reset by us", ACCEPTED, STREAM, "5.4.2", CLIENT, [H("response", 5)]),
    Known(
        "HEADERS", "reset by us", ACCEPTED, CONNECTION, "5.1", CLIENT, [H("informational", 5, True)]
    ),
    Known("WINDOW_UPDATE of 0", "reset by us", ACCEPTED, CONNECTION, "5.1", CLIENT, [W0(5)]),
]


def known(label, state, ours, theirs):
    """The entries for this difference."""
    return [
        entry
        for entry in KNOWN
        if label.startswith(entry.frame)
        and state.startswith(entry.state)
        and (ours, theirs) == entry[2:4]
    ]


def play(client_side, sequence):
    """A pair that has gone through `sequence`."""
    pair = Pair(client_side=client_side)
    for action in sequence:
        if len(action) == 2:
            pair.act(*action)
        else:
            pair.feed_ours([action[2]])
            pair.feed_theirs(action[2])
    return pair


def check(client_side, sequence, cuts=()):
    """Compare after each frame; go on without a frame on which they differ or end.

    Return the entries of `KNOWN` that were needed.
    """
    pair = Pair(client_side=client_side)
    done = []
    needed = []
    for action in sequence:
        if len(action) == 2:
            pair.act(*action)
            done.append(action)
            continue
        label, stream_id, frame = action
        state = pair.state(stream_id)
        ours = pair.feed_ours(split(frame, cuts))
        theirs = pair.feed_theirs(frame)
        if ours != theirs:
            entries = known(label, state, ours, theirs)
            assert entries, (label, state, ours, theirs)
            needed += entries
        if CONNECTION not in {ours, theirs} and (ours == theirs or state == "reset by us"):
            done.append(action)
        else:
            pair = play(client_side, done)
        pair.compare_states()
    return needed


def split(frame, cuts):
    for size in cuts:
        yield frame[:size]
        frame = frame[size:]
    yield frame


@settings(max_examples=400)
@given(st.booleans(), actions, st.lists(st.integers(1, 12), max_size=6))
def test_both_agree_on_any_sequence_of_frames(client_side, sequence, cuts):
    check(client_side, sequence, cuts)


@pytest.mark.parametrize("entry", KNOWN, ids=range(len(KNOWN)))
def test_each_known_difference_is_real(entry):
    assert entry in check(entry.client_side, entry.example)


@pytest.mark.parametrize("client_side", [SERVER, CLIENT])
def test_h2_reads_nothing_after_goaway_and_we_go_on(client_side):
    """Section 6.8: streams up to the last one of a GOAWAY go on."""
    pair = Pair(client_side=client_side)
    goaway = GoAwayFrame(0, last_stream_id=5).serialize()
    assert pair.feed_ours([goaway]) == pair.feed_theirs(goaway) == ACCEPTED
    frame = H("response" if client_side else "request")[2]
    assert pair.feed_ours([frame]) == ACCEPTED
    assert pair.feed_theirs(frame) == CONNECTION
