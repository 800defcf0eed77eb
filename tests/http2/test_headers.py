from __future__ import annotations

import logging

import hpack
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from pyvider_rpcplugin.http2 import ErrorCode, HeaderBlock, HeaderEncoder
from pyvider_rpcplugin.http2._errors import ConnectionFault
from pyvider_rpcplugin.http2._headers import HeaderDecoder
from tests.http2.peer import REQUEST, RESPONSE

SPECIAL = {
    "connection",
    "proxy-connection",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "te",
    "content-length",
}

names = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9a-z]+", fullmatch=True).filter(
    lambda name: name not in SPECIAL
)
values = st.text(st.characters(max_codepoint=255, exclude_characters="\0\r\n"), max_size=40).map(
    lambda value: value.strip(" \t")
)
fields = st.lists(st.tuples(names, values), max_size=8)


def decoder(max_list_size=65_536, max_fields=512):
    return HeaderDecoder(max_list_size, max_fields)


def text(pairs):
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]


# --- what a header section may hold (RFC 9113, section 8) ------------------------------------


@given(fields, st.booleans())
def test_header_blocks_survive_the_round_trip(pairs, huffman):
    encoder = HeaderEncoder()
    block = encoder.preamble + encoder.encode(pairs, huffman=huffman)
    headers = decoder().decode(block)
    assert list(headers.fields) == pairs
    assert headers.trailer_fault is None
    assert text(hpack.Decoder().decode(block, raw=True)) == pairs


def test_blocks_of_ours_may_be_joined_and_repeated():
    encoder = HeaderEncoder()
    one, two = encoder.encode(REQUEST), encoder.encode([("a", "b")])
    oracle = hpack.Decoder()
    for start in (encoder.preamble, b"", b""):
        pairs = text(oracle.decode(start + one + two, raw=True))
        assert pairs == [*REQUEST, ("a", "b")]


def test_request_and_response_are_told_apart():
    request, response = HeaderBlock(REQUEST), HeaderBlock(RESPONSE)
    assert request.request_fault is None
    assert request.pseudo[":path"] == "/echo.Echo/Unary"
    assert ("te", "trailers") in request.fields
    assert request.response_fault is not None
    assert request.trailer_fault is not None
    assert response.response_fault is None
    assert response.request_fault is not None


@pytest.mark.parametrize(
    "pair",
    [
        ("Upper", "x"),
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("ä", "x"),
        ("a\n", "x"),
        ("a", "x\0"),
        ("a", "x\r"),
        ("a", "x\ny"),
        ("a", " x"),
        ("a", "x\t"),
        ("connection", "close"),
        ("proxy-connection", "close"),
        ("keep-alive", "1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("content-length", "x"),
        ("content-length", ""),
        ("content-length", "-1"),
        ("content-length", "²"),
        ("content-length", "1" * 19),
        (":path", "again"),
        (":status", "200"),
        (":made-up", "x"),
    ],
)
def test_malformed_fields_make_every_kind_of_section_invalid(pair):
    assert HeaderBlock([*REQUEST, pair]).request_fault is not None
    assert HeaderBlock([*RESPONSE, pair]).response_fault is not None
    assert HeaderBlock([("a", "b"), pair]).trailer_fault is not None


@pytest.mark.parametrize("missing", [":method", ":scheme", ":path"])
def test_request_needs_its_pseudo_header_fields(missing):
    assert HeaderBlock([p for p in REQUEST if p[0] != missing]).request_fault is not None
    emptied = [(name, "" if name == missing else value) for name, value in REQUEST]
    assert HeaderBlock(emptied).request_fault is not None or missing == ":method"


def test_request_needs_no_authority():
    assert HeaderBlock([p for p in REQUEST if p[0] != ":authority"]).request_fault is None


def test_pseudo_header_fields_come_first_and_once():
    assert HeaderBlock([REQUEST[-1], *REQUEST[:-1]]).request_fault is not None
    assert HeaderBlock([REQUEST[0], *REQUEST]).request_fault is not None


def test_connect_has_authority_alone():
    connect = [(":method", "CONNECT"), (":authority", "localhost:80")]
    assert HeaderBlock(connect).request_fault is None
    assert HeaderBlock(connect[:1]).request_fault is not None
    assert HeaderBlock([*connect, (":path", "/"), (":scheme", "http")]).request_fault is not None


@pytest.mark.parametrize("status", ["", "20", "2000", "abc", "²00", "101"])
def test_status_has_three_digits_and_switches_no_protocol(status):
    assert HeaderBlock([(":status", status)]).response_fault is not None


def test_content_length_is_read_once():
    assert HeaderBlock([("content-length", "12")]).content_length == 12
    assert HeaderBlock([("content-length", "12")] * 2).content_length == 12
    assert HeaderBlock([("content-length", "12"), ("content-length", "13")]).trailer_fault
    assert HeaderBlock([("a", "b")]).content_length is None


# --- bounds ----------------------------------------------------------------------------------


def test_equal_blocks_are_decoded_once():
    block = HeaderEncoder().encode(REQUEST)
    ours = decoder()
    ours.decode(HeaderEncoder.preamble)
    assert ours.decode(block) is ours.decode(block)


def test_blocks_are_forgotten_when_the_table_changes():
    encoder, ours = hpack.Encoder(), decoder()
    first, again = encoder.encode([("a", "1")]), encoder.encode([("a", "1")])
    ours.decode(first)
    assert ours.decode(again).fields == ours.decode(again).fields == (("a", "1"),)
    ours.decode(encoder.encode([("b", "2")]))
    assert encoder.encode([("b", "2")]) == again
    assert ours.decode(again).fields == (("b", "2"),)


def test_cache_holds_neither_long_blocks_nor_much_text_nor_many_blocks():
    ours = decoder()
    long = HeaderEncoder().encode([("a", "x" * 1100)], huffman=False)
    assert ours.decode(long) is not ours.decode(long)
    ours.decode(hpack.Encoder().encode([("big", "x" * 4000)]))
    much = b"\xbe\xbe"  # twice the entry above
    assert ours.decode(much).fields == ours.decode(much).fields
    assert ours.decode(much) is not ours.decode(much)
    ours.decode(HeaderEncoder.preamble)
    first = HeaderEncoder().encode([("n", "0")])
    kept = ours.decode(first)
    assert ours.decode(first) is kept
    for number in range(1, 257):
        ours.decode(HeaderEncoder().encode([("n", str(number))]))
    assert ours.decode(first) is not kept
    assert ours.decode(first).fields == kept.fields


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (hpack.Encoder().encode([("a", "x" * 4000)]), ErrorCode.ENHANCE_YOUR_CALM),
        # A bomb: one field in the table, then a reference to it per octet.
        (hpack.Encoder().encode([("a", "x" * 500)]) + b"\xbe" * 50, ErrorCode.ENHANCE_YOUR_CALM),
        (b"\x20" * 17, ErrorCode.ENHANCE_YOUR_CALM),
        (b"\x3f\x81\x00" * 100, ErrorCode.ENHANCE_YOUR_CALM),
        (b"\x3f\xe2\x1f", ErrorCode.COMPRESSION_ERROR),  # a table of 4097 octets
        (b"\x82\x20", ErrorCode.COMPRESSION_ERROR),  # a size update behind a field
        (b"\x80", ErrorCode.COMPRESSION_ERROR),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", ErrorCode.COMPRESSION_ERROR),
        (b"\xbe", ErrorCode.COMPRESSION_ERROR),  # an entry that is not there
        (b"\x40", ErrorCode.COMPRESSION_ERROR),
        (b"\x40\x0aabc", ErrorCode.COMPRESSION_ERROR),
        (b"\x00\x81\xff\x00", ErrorCode.COMPRESSION_ERROR),  # wrong Huffman padding
    ],
)
def test_block_that_is_malformed_or_over_a_bound_ends_the_connection(block, code):
    with pytest.raises(ConnectionFault) as caught:
        decoder(max_list_size=1000, max_fields=10).decode(block)
    assert caught.value.code == code


@pytest.mark.parametrize("fields", [[("a", "x" * 1000)], [("a", "b")] * 11])
def test_block_a_little_over_a_bound_may_be_no_section_and_keeps_the_table_in_step(fields):
    ours = decoder(max_list_size=1000, max_fields=10)
    block = ours.decode(HeaderEncoder().encode(fields) + hpack.Encoder().encode([("new", "entry")]))
    assert block.fault_code is ErrorCode.ENHANCE_YOUR_CALM
    assert block.fields == ()
    for fault in (block.request_fault, block.response_fault, block.trailer_fault):
        assert fault is not None
        assert "allowed" in fault
    assert ours.decode(b"\xbe").fields == (("new", "entry"),)


@given(st.binary(max_size=200))
def test_garbage_is_decoded_like_the_oracle_does_or_is_a_connection_error(block):
    oracle = hpack.Decoder(max_header_list_size=4000)
    try:
        expected = text(oracle.decode(block, raw=True))
    except Exception:
        expected = None
    if expected is None:
        with pytest.raises(ConnectionFault):
            decoder(max_list_size=1000).decode(block)
        return
    try:
        headers = decoder(max_list_size=1000).decode(block)
    except ConnectionFault:
        assert len(block) > 16  # only updates of the table's size, and more than we take
        assert expected == []
    else:
        assert headers.trailer_fault is not None or list(headers.fields) == expected


class CachedDecoding(RuleBasedStateMachine):
    """Whatever the peer does with its table, the cache changes nothing."""

    def __init__(self):
        super().__init__()
        self.encoder = hpack.Encoder()
        self.oracle = hpack.Decoder()
        self.ours = decoder()
        self.sent = [b"\xbe", b"\xbf", b"\x82"]
        self.broken = False

    def check(self, block):
        if self.broken:
            return
        try:
            expected = text(self.oracle.decode(block, raw=True))
        except hpack.HPACKError:
            self.broken = True
            with pytest.raises(ConnectionFault):
                self.ours.decode(block)
        else:
            self.sent.append(block)
            headers = self.ours.decode(block)
            uncached = HeaderBlock(expected)
            assert (headers.pseudo, headers.fields) == (uncached.pseudo, uncached.fields)

    @rule(pairs=st.lists(st.sampled_from([("a", "1"), ("b", "2"), ("c", "3"), ("d", "x" * 90)])))
    def send_fields(self, pairs):
        self.check(self.encoder.encode(pairs))

    @rule(size=st.sampled_from([0, 40, 80, 4096]), pairs=st.sampled_from([[], [("a", "1")]]))
    def resize(self, size, pairs):
        self.encoder.header_table_size = size
        self.check(self.encoder.encode(pairs))

    @rule(data=st.data())
    def repeat(self, data):
        self.check(data.draw(st.sampled_from(self.sent)))

    @rule(data=st.data())
    def empty_the_table_and_repeat(self, data):
        self.check(b"\x20\x3f\xe1\x1f")  # no octets, then 4096 again
        self.check(data.draw(st.sampled_from(self.sent)))


CachedDecoding.TestCase.settings = settings(max_examples=150, stateful_step_count=15)
TestCachedDecoding = CachedDecoding.TestCase


def test_what_headers_hold_is_not_logged_unless_it_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    block = HeaderEncoder().encode([("authorization", "secret")])
    with caplog.at_level(logging.DEBUG):
        HeaderDecoder(65_536, 512).decode(block)
    assert "secret" not in caplog.text
    with caplog.at_level(logging.DEBUG, logger="hpack"):
        HeaderDecoder(65_536, 512).decode(block)
    assert "secret" in caplog.text
