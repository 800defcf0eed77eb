"""State machines: whatever order things happen in, what must hold holds, and models agree.

Those for HTTP/2 are with the tests of the windows and of the header blocks, against `h2` and `hpack`.
"""

from __future__ import annotations

import contextlib
import random

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyvider_rpcplugin.exception import HandshakeError
from pyvider_rpcplugin.handshake import HandshakeReader
from pyvider_rpcplugin.logs import StderrParser
from pyvider_rpcplugin.process import LineSplitter
from pyvider_rpcplugin.services._knocks import Doors
from pyvider_rpcplugin.services._mailboxes import MOST_ANNOUNCED, WINDOW, Mailboxes
from pyvider_rpcplugin.services._messages import ConnInfo, Knock
from pyvider_rpcplugin.yamux import WINDOW as YAMUX_WINDOW, YamuxError, YamuxSession
from tests.http2.test_headers import CachedDecoding
from tests.http2.test_windows import Windows
from tests.yamux.test_properties import Side, act, deliver


class Yamux(RuleBasedStateMachine):
    """Two sessions with a connection between them that gives bytes in any pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = Side(client=True), Side(client=False)
        self.chance = random.Random(0)

    @rule(seed=st.integers(0, 2**32))
    def choose(self, seed: int) -> None:
        self.chance.seed(seed)

    @rule(which=st.integers(0, 1), times=st.integers(1, 5))
    def do(self, which: int, times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(YamuxError):  # the other side has left
                act(self.sides[which], self.chance)

    @rule(which=st.integers(0, 1))
    def carry(self, which: int) -> None:
        deliver(self.sides[which], self.sides[1 - which], self.chance)

    @rule(which=st.integers(0, 1))
    def leave(self, which: int) -> None:
        if self.chance.random() < 0.05:
            self.sides[which].session.go_away()

    @invariant()
    def windows_add_up(self) -> None:
        for one, other in (self.sides, self.sides[::-1]):
            session: YamuxSession = one.session
            assert session.fault is None
            for number, stream in session.streams.items():
                assert 0 <= stream.receive_window <= YAMUX_WINDOW
                assert 0 <= stream.send_window <= YAMUX_WINDOW
                assert bytes(other.got[number]) == bytes(one.sent[number])[: len(other.got[number])]


class Broker(RuleBasedStateMachine):
    """Mailboxes and doors against what they are said to be."""

    numbers = st.integers(1, 6)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.boxes, self.doors = Mailboxes(), Doors()
        self.announced: dict[int, float] = {}
        self.open: set[int] = set()
        self.expected: list[tuple[int, float]] = []
        self.early: dict[int, float] = {}

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 4.9, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=numbers)
    def announce(self, number: int) -> None:
        complaint = self.boxes.put(ConnInfo(number, "unix", "/x"), self.now)
        known = self.announced.get(number, -1.0) > self.now
        assert (complaint is not None) == known
        if not known:
            self.announced[number] = self.now + WINDOW

    @rule(number=numbers)
    def dial(self, number: int) -> None:
        found = self.boxes.take(number, self.now)
        assert (found is not None) == (self.announced.pop(number, -1.0) > self.now)

    @rule(number=numbers)
    def serve(self, number: int) -> None:
        answer = self.doors.open(number, self.now)
        waited = self.early.pop(number, -1.0) > self.now
        self.open.add(number)
        self.answered(number, answer, waited)

    @rule(number=numbers)
    def end(self, number: int) -> None:
        self.doors.close(number)
        self.open.discard(number)

    @rule(number=numbers)
    def knock(self, number: int) -> None:
        answer = self.doors.knocked(number, self.now)
        if number not in self.open:
            self.early[number] = self.now + WINDOW
        self.answered(number, answer, number in self.open)

    @rule()
    def open_stream(self) -> None:
        self.expected = [one for one in self.expected if one[1] > self.now]
        expected = self.expected.pop(0)[0] if self.expected else None
        assert self.doors.stream_opened(self.now) == expected

    def answered(self, number: int, answer: ConnInfo | None, due: bool) -> None:
        assert (answer is not None) == due
        if answer is not None:
            assert answer == ConnInfo(number, knock=Knock(knock=True, ack=True))
            self.expected.append((number, self.now + WINDOW))

    @invariant()
    def bounded(self) -> None:
        assert len(self.boxes) <= MOST_ANNOUNCED


class Handshake(RuleBasedStateMachine):
    """A plugin's first output, piece by piece, against the same in one piece."""

    limit = 300
    lines = st.sampled_from(
        [
            b"1|1|unix|/tmp/x|grpc\n",
            b"noise\n",
            b"\r\n",
            b"50%\r1|2|tcp|127.0.0.1:1|grpc|\n",
            b"x" * 150,
        ]
    )

    @initialize()
    def begin(self) -> None:
        self.reader = HandshakeReader(self.limit)
        self.output = b""
        self.noise: list[bytes] = []
        self.over = False

    @precondition(lambda self: self.over)
    @rule()
    def begin_anew(self) -> None:
        self.begin()

    @precondition(lambda self: not self.over)
    @rule(piece=lines | st.binary(max_size=20), end=st.booleans())
    def feed(self, piece: bytes, end: bool) -> None:
        self.output += piece
        self.over = end
        whole = HandshakeReader(self.limit)
        try:
            noise = whole.feed(self.output) + (whole.feed_eof() if end else [])
        except HandshakeError:
            self.over = True
            try:
                self.reader.feed(piece)
                self.reader.feed_eof()
            except HandshakeError:
                return
            raise AssertionError from None
        self.noise += self.reader.feed(piece) + (self.reader.feed_eof() if end else [])
        assert (self.reader.line, self.reader.leftover) == (whole.line, whole.leftover)
        assert self.noise == noise
        assert len(self.reader._pending) <= self.limit + 64 * 1024


class Logs(RuleBasedStateMachine):
    """What a plugin writes to its standard error: no text is lost, and little is held."""

    pieces = st.sampled_from(
        [
            b"plain\n",
            b"[WARN] x\n",
            b'{"@level":"info","@message":"m"}\n',
            b"Traceback (most recent call last):\n",
            b"  File 1\n",
            b"ValueError\n",
            b"Exception in thread t\n",
            b"panic: x\n",
            b"  + Exception Group Traceback (most recent call last):\n",
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.splitter = LineSplitter(40)
        self.parser = StderrParser()
        self.fed: list[str] = []
        self.given: list[str] = []

    @rule(piece=pieces | st.binary(max_size=60))
    def write(self, piece: bytes) -> None:
        for line in self.splitter.feed(piece):
            self.fed.append(line)
            self.given += [record.message for record in self.parser.feed(line)]

    @rule()
    def pause(self) -> None:
        self.given += [record.message for record in self.parser.flush()]

    @invariant()
    def nothing_is_lost(self) -> None:
        held = "\n".join(self.parser._held)
        given = "\n".join(self.given)
        for line in self.fed:
            if not line.lstrip().startswith("{") and line.strip("\n "):
                assert line.rstrip("\n") in given or line in held
        assert len(self.parser._held) <= 1000
        assert len(self.splitter._rest) <= 40


MACHINES: dict[str, type[RuleBasedStateMachine]] = {
    "http2 windows": Windows,
    "http2 headers": CachedDecoding,
    "yamux": Yamux,
    "broker": Broker,
    "handshake": Handshake,
    "logs": Logs,
}


def run(name: str, examples: int, *, by_chance: bool) -> None:
    """Run a machine so many times, for up to 40 steps each."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        MACHINES[name],
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=not by_chance,
            deadline=None,
            database=None,
            suppress_health_check=checks,
        ),
    )
