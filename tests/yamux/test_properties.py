"""Whatever is sent, in whatever pieces: content arrives in order, and windows add up."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from hypothesis import given, settings, strategies as st

from pyvider_rpcplugin.yamux import (
    BACKLOG,
    WINDOW,
    DataReceived,
    Event,
    SessionFaulted,
    StreamEnded,
    StreamOpened,
    StreamReset,
    YamuxSession,
    YamuxStream,
)
from tests.yamux.test_session import ACK, FIN, RST, SYN, frame


def joined(events: list[Event]) -> list[tuple[Any, ...]]:
    """Events without what the pieces decide: content that follows content is one."""
    result: list[tuple[Any, ...]] = []
    for event in events:
        number = getattr(getattr(event, "stream", None), "id", None)
        if isinstance(event, DataReceived):
            last = result[-1] if result else None
            if last is not None and last[:2] == ("data", number):
                result[-1] = ("data", number, last[2] + event.data)
            else:
                result.append(("data", number, event.data))
        else:
            result.append((type(event).__name__, number))
    return result


flags = st.integers(0, 15) | st.sampled_from([0, 0, SYN, ACK, FIN, RST])
plausible = st.builds(
    lambda kind, flag, stream, data, length: frame(
        kind, flag, stream, len(data) if kind == 0 else length, data if kind == 0 else b""
    ),
    st.integers(0, 3),
    flags,
    st.integers(0, 9),
    st.binary(max_size=20),
    st.sampled_from([0, 1, 500, 0xFFFF_FFFF]),
)
traffic = st.lists(plausible | st.binary(max_size=16), max_size=30).map(b"".join)


def pieces(data: bytes, seed: int) -> list[bytes]:
    chooser = random.Random(seed)
    cut: list[bytes] = []
    while data:
        size = chooser.choice([1, 2, 5, 12, 13, 40])
        cut.append(data[:size])
        data = data[size:]
    return cut


@given(traffic, st.integers(), st.booleans())
def test_any_bytes_mean_the_same_in_any_pieces(data: bytes, seed: int, client: bool) -> None:
    whole, split = YamuxSession(client=client), YamuxSession(client=client)
    for session in (whole, split):
        session.open()
    at_once = whole.receive(data)
    one_by_one = [event for piece in pieces(data, seed) for event in split.receive(piece)]
    assert joined(at_once) == joined(one_by_one)
    assert whole.take_output() == split.take_output()
    assert whole.fault == split.fault
    assert sum(isinstance(event, SessionFaulted) for event in at_once) == (whole.fault is not None)
    assert len(whole._waiting) <= BACKLOG


class Side:
    """A session, and what its user has done and seen."""

    def __init__(self, *, client: bool) -> None:
        self.session = YamuxSession(client=client)
        self.known: dict[int, YamuxStream] = {}
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.held: dict[int, int] = defaultdict(int)  # not yet consumed
        self.ended: set[int] = set()

    def see(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case StreamOpened(stream):
                    self.known[stream.id] = stream
                case DataReceived(stream, data):
                    assert stream.id not in self.ended
                    self.got[stream.id] += data
                    self.held[stream.id] += len(data)
                    assert self.held[stream.id] <= WINDOW
                case StreamEnded(stream) | StreamReset(stream):
                    self.ended.add(stream.id)
                case SessionFaulted(reason):
                    raise AssertionError(reason)
                case _:
                    pass


def act(side: Side, chooser: random.Random) -> None:
    session = side.session
    action = chooser.choice(["open", "accept", "send", "send", "send", "consume", "consume", "end"])
    if action == "open":
        if len(side.known) < 6:
            stream = session.open()
            side.known[stream.id] = stream
        return
    if not side.known:
        return
    stream = chooser.choice(list(side.known.values()))
    if action == "accept":
        session.accept(stream)
    elif action == "send" and not (stream.local_closed or stream.is_reset):
        data = chooser.randbytes(chooser.choice([0, 1, 1000, 100_000, 300_000]))
        taken = session.send(stream, data)
        side.sent[stream.id] += data[:taken]
    elif action == "consume":
        size = side.held[stream.id]
        part = chooser.choice([size, size // 2, min(size, 7)])
        session.consumed(stream, part)
        side.held[stream.id] -= part
    elif action == "end" and chooser.random() < 0.2:
        session.end(stream)


def deliver(sender: Side, receiver: Side, chooser: random.Random) -> None:
    data = sender.session.take_output()
    while data:
        size = chooser.choice([1, 11, 12, 13, 5000, 1 << 20])
        receiver.see(receiver.session.receive(data[:size]))
        data = data[size:]


@settings(max_examples=60)
@given(st.integers())
def test_two_sessions_carry_everything_in_order_and_their_windows_agree(seed: int) -> None:
    chooser = random.Random(seed)
    sides = Side(client=True), Side(client=False)
    for _ in range(150):
        act(chooser.choice(sides), chooser)
        if chooser.random() < 0.3:
            one, other = chooser.sample(sides, 2)
            deliver(one, other, chooser)
    for _ in range(2):
        deliver(sides[0], sides[1], chooser)
        deliver(sides[1], sides[0], chooser)
    for one, other in (sides, sides[::-1]):
        for number, stream in one.known.items():
            assert other.got[number] == one.sent[number]
            there = other.known[number]
            if not stream.closed and not there.closed and not stream.local_closed:
                # All is delivered: what one side may send is what the other one has room for.
                assert stream.send_window == there.receive_window
                used = other.held[number] + there.unreported
                assert there.receive_window + used == WINDOW
        assert one.session.fault is None
