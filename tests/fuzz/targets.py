"""What is fuzzed: each target takes any bytes, and must neither raise, nor hang, nor hold much."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.client._log import LineLog, PluginLog
from pyvider_rpcplugin.crypto import Certificate
from pyvider_rpcplugin.crypto._source import is_one_der_element
from pyvider_rpcplugin.crypto.contexts import peer_certificate
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError, SecurityError
from pyvider_rpcplugin.handshake import (
    HandshakeReader,
    format_handshake_line,
    parse_handshake_line,
)
from pyvider_rpcplugin.handshake._reattach import ReattachConfig, parse_reattach_providers
from pyvider_rpcplugin.http2 import (
    ConnectionFault,
    ConnectionFaulted,
    DataReceived,
    ErrorCode,
    H2Connection,
    Limits,
    RequestReceived,
)
from pyvider_rpcplugin.http2._frames import FrameReader
from pyvider_rpcplugin.http2._headers import HeaderDecoder
from pyvider_rpcplugin.logs import StderrParser, readable
from pyvider_rpcplugin.process import LineSplitter
from pyvider_rpcplugin.protocol.typed._errors import ERROR_KEY, Registry
from pyvider_rpcplugin.protocol.typed._interface import methods_of
from pyvider_rpcplugin.protocol.typed._messages import CANNOT_DECODE, PackedMessages, decoder
from pyvider_rpcplugin.rpc._client_stream import ResponseHead, _Trailers
from pyvider_rpcplugin.rpc._codecs import default_details_codec
from pyvider_rpcplugin.rpc._compression import ENCODINGS
from pyvider_rpcplugin.rpc._messages import MessageBuffer, MessageTooLarge
from pyvider_rpcplugin.rpc._request import RequestHead
from pyvider_rpcplugin.rpc._status import status_from_trailers
from pyvider_rpcplugin.services._knocks import Doors
from pyvider_rpcplugin.services._mailboxes import Heard, Mailboxes, Unreadable
from pyvider_rpcplugin.services._messages import ConnInfo
from pyvider_rpcplugin.services._stdio_messages import StdioData
from pyvider_rpcplugin.yamux import (
    BACKLOG,
    WINDOW,
    DataReceived as YamuxData,
    StreamOpened,
    YamuxError,
    YamuxSession,
    YamuxStream,
)
from tests.fuzz.reader import Reader, actions
from tests.http2.peer import REQUEST_BLOCK, RESPONSE_BLOCK
from tests.http2.test_differential import SETTINGS as SMALL, check

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


def _check_size(error: Exception, most: int) -> None:
    """What a peer sends must not make an error too long to read."""
    assert len(str(error)) < most


# --- HTTP/2 ----------------------------------------------------------------------------------

_TIGHT = Limits(
    header_list_size=500,
    header_fields=20,
    header_block_size=1000,
    continuation_frames=3,
    settings=5,
    idle_frames=30,
    resets=30,
)
_MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_OPENING = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0"


class _Connection:
    """A connection of ours, what its owner does with it, and what must always hold."""

    def __init__(self, *, client_side: bool, tight: bool) -> None:
        self.client_side = client_side
        self.h2 = H2Connection(
            client_side=client_side, settings=SMALL, limits=_TIGHT if tight else None
        )
        self.h2.initiate()
        self.full = SMALL.connection_window_size
        self.seen: dict[int, Any] = {}
        self.faulted = False
        self.h2.take_output()

    def open_some(self) -> None:
        if self.client_side:
            for end in (False, True, False):
                stream = self.h2.send_request(REQUEST_BLOCK, end_stream=end)
                self.seen[stream.stream_id] = stream
            self.h2.take_output()

    def feed(self, octets: bytes) -> None:
        for event in self.h2.receive_data(octets):
            assert not self.faulted
            if isinstance(event, RequestReceived):
                self.seen[event.stream.stream_id] = event.stream
            elif isinstance(event, ConnectionFaulted):
                self.faulted = True
            elif isinstance(event, DataReceived) and len(event.data) % 3 == 0:
                self.h2.acknowledge(event.stream, len(event.data))
        self.check(len(octets))

    def act(self, name: str, stream_id: int) -> None:
        stream = self.seen.get(stream_id)
        if stream is None:
            return
        if name == "reset":
            self.h2.reset_stream(stream, ErrorCode.CANCEL)
            self.h2.release(stream)
        elif stream.closed or stream.local_closed:
            pass
        elif name == "respond":
            self.h2.send_headers(stream, RESPONSE_BLOCK)
        else:
            size = max(min(300, self.h2.sendable(stream)), 0)
            self.h2.send_data(stream, bytes(size), end_stream=name == "end")
        self.check(0)

    def check(self, received: int) -> None:
        h2 = self.h2
        output = h2.take_output()
        # Nothing that comes may be answered with many times its size, but for our last words.
        assert len(output) <= 2 * received + 1000
        frames = FrameReader(h2.remote.max_frame_size)
        assert all(kind < 10 for kind, *_ in frames.feed(output))
        assert not frames._parts
        assert not frames.data_left
        if not self.client_side:
            assert len(h2.streams) <= SMALL.max_concurrent_streams
        for stream in h2.streams.values():
            assert not stream.closed
            assert not (stream.local_closed and stream.remote_closed)
        if not h2.closed:
            held = sum(stream.unconsumed for stream in self.seen.values())
            assert h2._receive_window + h2._unacknowledged + held == self.full
        assert len(h2._on_their_way) <= 4096
        assert h2._block is None or h2._block.size <= h2._limits.header_block_size + 16_384


@target
def http2(octets: bytes) -> None:
    """Frames with a name, and others, in one piece or two, and what our side does meanwhile."""
    reader = Reader(octets)
    how = reader.number()
    ours = _Connection(client_side=bool(how & 1), tight=bool(how & 2))
    ours.feed((b"" if ours.client_side else _MAGIC) + _OPENING)
    ours.open_some()
    for action in actions(reader):
        if len(action) == 2:
            ours.act(*action)
            continue
        frame = action[2]
        cut = how >> 2 if how & 4 else 0
        for part in (frame[:cut], frame[cut:]):
            ours.feed(part)
        if how & 64:
            ours.h2.guard.refresh()


@target
def http2_raw(octets: bytes) -> None:
    """Any bytes behind the preface, or none of that."""
    reader = Reader(octets)
    how = reader.number()
    ours = _Connection(client_side=bool(how & 1), tight=bool(how & 2))
    if how & 4:
        ours.feed((b"" if ours.client_side else _MAGIC) + _OPENING)
        ours.open_some()
    size = how >> 3
    while reader.more:
        ours.feed(reader.take(size) if size else reader.rest())


@target
def differential(octets: bytes) -> None:
    """What `http2` gets, into ours and into `h2`: they agree on all of it."""
    reader = Reader(octets)
    how = reader.number()
    cuts = [how >> 2] if how & 4 else []
    check(bool(how & 1), list(actions(reader, most=14)), cuts)


@target
def hpack(octets: bytes) -> None:
    """Header blocks, one after the other, and what gRPC reads out of them."""
    reader = Reader(octets)
    decoder = HeaderDecoder(2000, 20)
    codec = default_details_codec()
    while reader.more:
        block = reader.take(reader.number())
        try:
            headers = decoder.decode(block)
        except ConnectionFault:
            return
        assert len(decoder._cache) <= 256
        if headers.request_fault is None:
            head = RequestHead(headers)
            head.metadata()
            assert head.timeout is None or head.timeout >= 0
        if headers.response_fault is None:
            ResponseHead(headers)
        if headers.trailer_fault is None:
            _Trailers(headers)
            status_from_trailers(headers.fields, codec)


# --- gRPC ------------------------------------------------------------------------------------

_FIELDS = (
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "content-type",
    "content-length",
    "some-bin",
    "some",
    "te",
)


@target
def metadata(octets: bytes) -> None:
    """What the fields of requests, responses and trailers may hold."""
    from pyvider_rpcplugin.http2 import HeaderBlock

    reader = Reader(octets)
    fields = []
    while reader.more:
        name = reader.choice(_FIELDS)
        fields.append((name, reader.take(reader.number()).decode("latin-1")))
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/a/b")]
    request = HeaderBlock([*pseudo, *fields])
    if request.request_fault is None:
        RequestHead(request).metadata()
    response = HeaderBlock([(":status", "200"), *fields])
    if response.response_fault is None:
        ResponseHead(response)
    trailers = HeaderBlock(fields)
    if trailers.trailer_fault is None:
        _Trailers(trailers)
        status = status_from_trailers(trailers.fields, default_details_codec())
        with contextlib.suppress(GRPCError):
            status.raise_for_error()


@target
def messages(octets: bytes) -> None:
    """Length-prefixed messages in any pieces, compressed ones too."""
    reader = Reader(octets)
    limit = 5000
    encoding = reader.choice(tuple(ENCODINGS.values()))
    size = reader.number()
    content = reader.rest()
    taken = []
    for step in (size, 1000_000):
        buffer = MessageBuffer(limit)
        found: list[Any] = []
        rest = content
        credit = 0
        try:
            while rest:
                part, rest = rest[: step + 1], rest[step + 1 :]
                buffer.append(memoryview(part) if size & 1 else part)
                if size & 2 and not buffer.ready:
                    credit += buffer.credit_all()
                while (message := buffer.take()) is not None:
                    credit += message[2]
                    found.append(message[:2])
        except MessageTooLarge as error:
            found.append(str(error))
        else:
            assert credit + buffer._size - buffer.credited == len(content)
        taken.append(found)
    assert taken[0] == taken[1]
    for message in taken[0]:
        if not isinstance(message, str):
            with contextlib.suppress(OverflowError, ValueError):
                assert len(encoding.decompress(message[1], limit)) <= limit


@target
def broker(octets: bytes) -> None:
    """What the other side may say on the broker's stream, and on that of the output."""
    reader = Reader(octets)
    boxes, doors = Mailboxes(), Doors()
    now = 0.0
    while reader.more:
        now += reader.number() / 100
        content = reader.take(reader.number())
        heard = Heard.FromString(content)
        if not isinstance(heard, Unreadable):
            assert ConnInfo.FromString(heard.SerializeToString()) == heard
            if heard.knock is not None:
                doors.knocked(heard.service_id, now)
                doors.open(heard.service_id % 4, now)
                doors.stream_opened(now)
        boxes.put(heard, now)
        boxes.take(reader.number(), now)
        assert len(boxes) <= 1024
        with contextlib.suppress(ValueError):
            piece = StdioData.FromString(content)
            assert StdioData.FromString(piece.SerializeToString()) == piece


# --- yamux -----------------------------------------------------------------------------------


class _Yamux:
    def __init__(self, *, client: bool) -> None:
        self.session = YamuxSession(client=client)
        self.known: dict[int, YamuxStream] = {}
        self.held: dict[int, int] = {}
        for _ in range(2):
            stream = self.session.open()
            self.known[stream.id] = stream
        self.session.take_output()

    def feed(self, octets: bytes) -> list[Any]:
        events: list[Any] = list(self.session.receive(octets))
        for event in events:
            if isinstance(event, StreamOpened):
                self.known[event.stream.id] = event.stream
                self.held[event.stream.id] = 0
            elif isinstance(event, YamuxData):
                number = event.stream.id
                self.held[number] = self.held.get(number, 0) + len(event.data)
                assert self.held[number] <= WINDOW
        session = self.session
        assert session.output_size <= 12 * (4096 + 1) + 1_000_000
        assert len(session._waiting) <= BACKLOG
        for stream in session.streams.values():
            assert session.fault is not None or not stream.closed
            assert stream.receive_window >= 0
        return events

    def act(self, what: int, number: int, size: int) -> None:
        session, stream = self.session, self.known.get(number)
        if stream is None:
            return
        with contextlib.suppress(YamuxError):
            match what:
                case 0:
                    session.accept(stream)
                case 1:
                    session.send(stream, bytes(size))
                case 2:
                    used = min(size, self.held.get(number, 0))
                    session.consumed(stream, used)
                    self.held[number] = self.held.get(number, 0) - used
                case 3:
                    session.end(stream)
                case 4:
                    session.reset(stream)
                case _:
                    session.take_output()


@target
def yamux(octets: bytes) -> None:
    """Frames, plausible and not, whole and byte by byte, and what our side does meanwhile."""
    reader = Reader(octets)
    how = reader.number()
    whole, split = _Yamux(client=bool(how & 1)), _Yamux(client=bool(how & 1))
    while reader.more:
        what = reader.number()
        if what < 64:
            number, size = reader.number() % 8, reader.number()
            whole.act(what % 6, number, size * 1000)
            split.act(what % 6, number, size * 1000)
            continue
        if what < 224:
            kind, flags, number = reader.number() % 5, reader.number() % 17, reader.number() % 8
            length = reader.number()
            content = reader.take(length) if kind == 0 else b""
            size = len(content) if kind == 0 else length * 1000 if length < 250 else 0xFFFF_FFFF
            frame = bytes([0, kind]) + flags.to_bytes(2, "big")
            frame += number.to_bytes(4, "big") + size.to_bytes(4, "big") + content
        else:
            frame = reader.take(what - 200)
        whole.feed(frame)
        for at in range(0, len(frame), 5):
            split.feed(frame[at : at + 5])
        assert whole.session.fault == split.session.fault
    assert whole.session.take_output() == split.session.take_output()


# --- what a plugin writes --------------------------------------------------------------------


@target
def handshake(octets: bytes) -> None:
    """A plugin's first output, in one piece and in several; and what may stand in its line."""
    reader = Reader(octets)
    step = reader.number() + 1
    content = reader.rest()
    seen: list[Any] = []
    for size in (step, max(len(content), 1)):
        found = HandshakeReader(2000)
        noise: list[bytes] = []
        try:
            for at in range(0, len(content), size):
                noise += found.feed(content[at : at + size])
            noise += found.feed_eof()
        except RPCPluginError as error:
            seen.append(type(error))
        else:
            assert found.line is not None or found.failure() is not None
            seen.append((found.line, noise, found.leftover))
    assert seen[0] == seen[1] or type in map(type, seen)
    for line in (content.decode("utf-8", "surrogateescape"), "1|1|" + content.decode("latin-1")):
        for multiplex in (False, True):
            try:
                record = parse_handshake_line(
                    line, versions=(1, 2), networks=("unix", "tcp"), multiplex_requested=multiplex
                )
            except RPCPluginError as error:
                _check_size(error, 3000)
                continue
            with contextlib.suppress(RPCPluginError):
                format_handshake_line(record)
    with contextlib.suppress(ConfigError):
        again = ReattachConfig.from_json(content)
        assert ReattachConfig.from_json(again.to_json()) == again
    with contextlib.suppress(ConfigError):
        parse_reattach_providers(content)


class _Formatting(logging.Handler):
    """Formats each record as handlers do, and lets errors out."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


_log = PluginLog("fuzz", "DEBUG")
_log.logger.propagate = False
_log.logger.addHandler(_Formatting())


@target
def logs(octets: bytes) -> None:
    """What a plugin writes to its standard error: to lines, to records, to the host's log."""
    reader = Reader(octets)
    step = reader.number() + 1
    content = reader.rest()
    split: list[list[str]] = []
    for size in (step, max(len(content), 1)):
        splitter = LineSplitter(200)
        lines = [
            line
            for at in range(0, len(content), size)
            for line in splitter.feed(content[at : at + size])
        ]
        assert len(splitter._rest) <= 200
        split.append([*lines, *splitter.flush()])
    assert split[0] == split[1]
    parser = StderrParser()
    for line in split[0]:
        for record in parser.feed(line):
            _log.relay(record)
        readable(line)
        assert len(parser._held) <= 1000
    for record in parser.flush():
        _log.relay(record)
    relay = LineLog(_log)
    for line in content.decode("utf-8", "replace").split("\n"):
        relay.feed(line)
    relay.flush()


# --- typed services --------------------------------------------------------------------------


class Thing(msgspec.Struct):
    name: str
    sizes: list[int] = []
    inner: dict[str, Thing] | None = None


class Refusal(Exception):
    """Travels, with a field of its own."""

    why: Thing
    code: int = 0


class Typed:
    """A service with arguments of many kinds."""

    async def do(
        self,
        a: int,
        text: str,
        *,
        data: bytes = b"",
        when: datetime | None = None,
        things: Sequence[Thing] = (),
        table: Mapping[str, tuple[float, bool]] | None = None,
    ) -> Thing:
        return Thing(text)

    async def take(self, items: AsyncIterator[Thing], name: str = "") -> int:
        return 0


_METHODS = methods_of(Typed)
_PACKED = {name: PackedMessages(method) for name, method in _METHODS.items()}
_REPLY = decoder(Thing, "Typed.do")
_ERRORS = Registry([Refusal, ValueError, KeyError, OSError, UnicodeDecodeError])


@target
def messagepack(octets: bytes) -> None:
    """Arguments, items, results, and exceptions that travel."""
    reader = Reader(octets)
    what = reader.number() % 4
    content = reader.rest()
    if what == 3:
        said = GRPCError(Status.UNKNOWN, "m")
        stream: Any = SimpleNamespace(trailing_metadata={ERROR_KEY: content})
        raised = _ERRORS.received(stream, said, "a plugin")
        assert isinstance(raised, GRPCError | Refusal | ValueError | KeyError | OSError)
        assert str(raised) is not None
        return
    try:
        if what == 0:
            _PACKED["do"].arguments(content)
        elif what == 1:
            _PACKED["take"].items(content)
        else:
            _REPLY(content)
    except GRPCError as error:
        _check_size(error, 2000)
    except CANNOT_DECODE:
        assert what == 2


# --- certificates ----------------------------------------------------------------------------


@target
def certificates(octets: bytes) -> None:
    """DER and PEM, whole and damaged."""
    reader = Reader(octets)
    what = reader.number() % 3
    content = reader.rest()
    try:
        if what == 0:
            found = Certificate.from_der(content)
            assert is_one_der_element(content)
        elif what == 1:
            found = Certificate.from_pem(content)
        else:
            found = Certificate.from_der(peer_certificate(content.decode("latin-1")))
    except SecurityError as error:
        _check_size(error, 1000)
        return
    assert len(repr(found)) < 70_000
    assert found.not_before.tzinfo is not None
    assert len(found.fingerprint) == 64
    assert len(found.dns_names) + len(found.ip_addresses) <= len(found.sans)
    assert found.common_name is None or "CN=" in found.subject
    found.is_issued_by(found)
