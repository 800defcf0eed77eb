"""Whatever a peer sends, no more is held for it than the limits say."""

from __future__ import annotations

import random
from collections import defaultdict

from hypothesis import given, settings, strategies as st

from pyvider_rpcplugin.yamux import (
    BACKLOG,
    WINDOW,
    DataReceived,
    Event,
    SessionFaulted,
    StreamOpened,
    YamuxError,
    YamuxSession,
    YamuxStream,
)
from tests.yamux.test_properties import pieces
from tests.yamux.test_session import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, frame


class Owner:
    """Whoever has the session to do with a peer that keeps to nothing."""

    def __init__(self, *, client: bool) -> None:
        self.session = YamuxSession(client=client)
        self.peer = 2 if client else 1  # the number of the peer's first stream
        self.held: dict[YamuxStream, int] = defaultdict(int)
        self.opened: list[YamuxStream] = []
        self.is_over = False

    def see(self, events: list[Event]) -> None:
        for event in events:
            assert not self.is_over
            match event:
                case StreamOpened(stream):
                    self.opened.append(stream)
                case DataReceived(stream, data):
                    self.held[stream] += len(data)
                case SessionFaulted():
                    self.is_over = True
                case _:
                    pass

    def check(self) -> None:
        session = self.session
        assert self.is_over == (session.fault is not None)
        assert all(size <= WINDOW for size in self.held.values())
        assert all(0 <= s.receive_window <= WINDOW for s in session.streams.values())
        streams = session.streams
        # A number may come again, for another stream.
        waiting = [s for s in self.opened if not s.accepted and streams.get(s.id) is s]
        assert len(waiting) <= BACKLOG
        ours = [s for s in session.streams.values() if s.id % 2 != self.peer % 2]
        assert sum(not stream.accepted for stream in ours) <= BACKLOG
        # Answers that nobody reads, at twelve octets each, and what the owner itself has said.
        assert session.output_size < 1 << 17


def hostile(chooser: random.Random, peer: int) -> bytes:
    """What a peer might send next: mostly what is allowed, often too much of it."""
    number = chooser.choice([peer, peer + 2, peer + 4, peer + 1, 0, peer + 2 * BACKLOG])
    action = chooser.choice(["flood", "open", "data", "much data", "window", "ping", "any", "end"])
    if action == "flood":
        first = peer + 2 * chooser.randrange(5000)
        count = chooser.choice([5, BACKLOG, 2 * BACKLOG])
        numbers = range(first, first + 2 * count, 2)
        return b"".join(frame(WINDOW_UPDATE, SYN, each, 0) for each in numbers)
    if action == "open":
        return frame(WINDOW_UPDATE, SYN, number, chooser.choice([0, 1, 0xFFFF_FFFF]))
    if action == "data":
        data = chooser.randbytes(chooser.randrange(50))
        return frame(DATA, chooser.choice([0, 0, SYN, FIN, RST, ACK]), number, len(data), data)
    if action == "much data":
        size = chooser.choice([WINDOW // 2, WINDOW, WINDOW + 1])
        return frame(DATA, 0, number, size, bytes(size))
    if action == "window":
        return frame(WINDOW_UPDATE, 0, number, chooser.choice([1, WINDOW, 0xFFFF_FFFF]))
    if action == "ping":
        return frame(PING, chooser.choice([SYN, ACK]), 0, 7) * chooser.choice([1, 1000, 5000])
    if action == "end":
        return frame(WINDOW_UPDATE, chooser.choice([FIN, RST, ACK, FIN | RST]), number, 0)
    return frame(
        chooser.choice([DATA, WINDOW_UPDATE, GO_AWAY, 4, 255]), chooser.randrange(1 << 16), number,
        chooser.choice([0, 1, 0xFFFF_FFFF]), version=chooser.choice([0, 0, 0, 1]),
    )  # fmt: skip


def act(owner: Owner, chooser: random.Random) -> None:
    """Do one of the things that the session's owner does meanwhile."""
    session = owner.session
    action = chooser.choice(["accept", "consume", "consume", "open", "send", "reset", "take"])
    if action == "open":
        try:
            session.open()
        except YamuxError:
            assert not session.can_open
    elif action == "take":
        session.take_output()
    elif action == "consume" and owner.held:
        stream = chooser.choice(list(owner.held))
        session.consumed(stream, owner.held.pop(stream))
    elif owner.opened:
        stream = chooser.choice(owner.opened)
        if action == "accept":
            session.accept(stream)
        elif action == "reset":
            session.reset(stream)
        elif stream.sendable and session.fault is None:
            session.send(stream, b"x")


@settings(max_examples=150)
@given(st.integers(), st.booleans())
def test_no_peer_gets_more_than_its_windows_and_its_backlog(seed: int, client: bool) -> None:
    chooser = random.Random(seed)
    owner = Owner(client=client)
    owner.session.open()
    for _ in range(40):
        sent = hostile(chooser, owner.peer)
        cut = pieces(sent, seed) if len(sent) < 1000 else [sent[:6], sent[6:]]
        for piece in cut:
            owner.see(owner.session.receive(piece))
            owner.check()
        act(owner, chooser)
        owner.check()


def test_those_limits_are_reached() -> None:
    owner = Owner(client=False)
    owner.see(owner.session.receive(frame(WINDOW_UPDATE, SYN, 1, 0)))
    owner.see(owner.session.receive(frame(DATA, 0, 1, WINDOW, bytes(WINDOW))))
    numbers = range(3, 3 + 2 * BACKLOG, 2)
    for number in numbers:
        owner.see(owner.session.receive(frame(WINDOW_UPDATE, SYN, number, 0)))
    owner.check()
    assert sum(owner.held.values()) == WINDOW
    assert len(owner.opened) == BACKLOG
    assert owner.session.take_output() == frame(WINDOW_UPDATE, RST, numbers[-1], 0)
