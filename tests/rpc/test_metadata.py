"""Metadata, timeouts and deadlines as header fields."""

from __future__ import annotations

import math
import re
from base64 import b64encode

import anyio
import pytest
from grpclib.metadata import Deadline as GrpclibDeadline
from hypothesis import given, strategies as st
from multidict import MultiDict

from pyvider_rpcplugin.rpc import Deadline
from pyvider_rpcplugin.rpc._metadata import (
    current_deadline,
    decode_binary,
    decode_metadata,
    decode_timeout,
    effective_deadline,
    encode_binary,
    encode_metadata,
    encode_timeout,
    header_list_size,
)

keys = st.from_regex(r"[0-9a-z_.\-]{1,12}", fullmatch=True).filter(
    lambda key: not key.startswith("grpc-") and not key.endswith("-bin")
)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(st.tuples(keys, texts) | st.tuples(keys.map(lambda k: f"{k}-bin"), st.binary())))
def test_metadata_survives_the_way(pairs: list[tuple[str, str | bytes]]) -> None:
    try:
        fields = encode_metadata(pairs)
    except ValueError:
        return  # one of the keys that HTTP has for itself
    assert all(re.fullmatch(r"[ -~]*", value) for _, value in fields)
    expected = [(k, v.strip(" ") if isinstance(v, str) else v) for k, v in pairs]
    assert list(decode_metadata(fields).items()) == expected


@pytest.mark.parametrize("size", range(20))
def test_binary_values_of_every_length_need_no_padding(size: int) -> None:
    value = bytes(range(250, 250 + 6)) * 4
    value = value[:size] if size <= len(value) else value
    assert "=" not in encode_binary(value)
    assert decode_binary(encode_binary(value)) == value
    assert decode_binary(b64encode(value).decode()) == value


def test_binary_values_joined_by_a_proxy_come_apart() -> None:
    metadata = decode_metadata([("key-bin", "AAE, AgM=,,BA")])
    assert metadata.getall("key-bin") == [b"\0\1", b"\2\3", b"", b"\4"]


@pytest.mark.parametrize("value", ["a", "a?bc", "äöüß", "AAE=A"])
def test_a_malformed_binary_value_is_left_out(value: str) -> None:
    assert list(decode_metadata([("a-bin", value), ("b", "1")]).items()) == [("b", "1")]


def test_text_beyond_ascii_from_a_peer_does_no_harm() -> None:
    assert decode_metadata([("key", "\xe4\xff")])["key"] == "\xe4\xff"


def test_what_grpc_uses_itself_is_no_metadata() -> None:
    fields = [
        ("te", "trailers"),
        ("content-type", "x"),
        ("user-agent", "y"),
        ("grpc-timeout", "1S"),
    ]
    assert not decode_metadata(fields)


@pytest.mark.parametrize(
    "key",
    ["Key", "", "a b", "ä", ":path", "grpc-status", "te", "content-type", "connection", "host"],
)
def test_keys_that_cannot_be_sent_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="invalid metadata key"):
        encode_metadata({key: "1"})


@pytest.mark.parametrize("value", ["ä", "a\nb", "\0", "\x7f"])
def test_text_values_are_printable_ascii(value: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        encode_metadata({"key": value})


def test_bytes_and_text_have_keys_of_their_own() -> None:
    with pytest.raises(TypeError, match="must be bytes"):
        encode_metadata({"key-bin": "text"})
    with pytest.raises(TypeError, match="must be str"):
        encode_metadata({"key": b"bytes"})


def test_pairs_and_multidicts_keep_their_order() -> None:
    pairs = [("b", "1"), ("a", "2"), ("b", "3")]
    assert encode_metadata(pairs) == pairs
    assert encode_metadata(MultiDict(pairs)) == pairs


def test_the_size_of_a_header_list_counts_32_octets_for_each_field() -> None:
    empty = header_list_size(())
    assert header_list_size([("abc", "de"), ("f", "")]) == empty + 5 + 1 + 64


# --- timeouts ------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=1e15, allow_nan=False))
def test_a_timeout_has_eight_digits_at_most_and_is_never_longer(seconds: float) -> None:
    text = encode_timeout(seconds)
    assert re.fullmatch(r"[0-9]{1,8}[HMSmun]", text)
    decoded = decode_timeout(text)
    assert decoded <= seconds * (1 + 1e-9)
    if seconds < 99_999_999 * 3600:
        assert decoded >= seconds * (1 - 1e-5) - 1e-9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("0n", 0)],
)
def test_all_units_are_understood(text: str, seconds: float) -> None:
    assert decode_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "S", "-1S", "1.5S", "123456789S", "1s", "1S ", "٣S"])
def test_malformed_timeouts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid grpc-timeout"):
        decode_timeout(text)


# --- deadlines -----------------------------------------------------------------------------------


async def test_a_deadline_counts_by_the_clock_of_the_loop() -> None:
    now = anyio.current_time()
    deadline = Deadline.from_timeout(50)
    assert now + 50 <= deadline.at <= anyio.current_time() + 50
    assert 0 < deadline.time_remaining() <= 50
    assert Deadline.from_timeout(-1).time_remaining() == 0
    assert Deadline.of(deadline) is deadline


async def test_a_deadline_of_grpclib_is_moved_to_the_clock_of_the_loop() -> None:
    moved = Deadline.of(GrpclibDeadline.from_timeout(50))
    assert 0 < moved.time_remaining() <= 50


async def test_the_earliest_deadline_counts() -> None:
    assert effective_deadline(None, None) is None
    assert effective_deadline(5, None) < effective_deadline(50, None)  # type: ignore[operator]
    early, late = Deadline.from_timeout(5), Deadline.from_timeout(50)
    assert effective_deadline(None, early) is early
    assert effective_deadline(50, early) is early
    assert effective_deadline(5, late) is not late
    token = current_deadline.set(early)
    try:
        assert effective_deadline(None, None) is early
        assert effective_deadline(50, late) is early
        assert effective_deadline(1, late) < early  # type: ignore[operator]
    finally:
        current_deadline.reset(token)


async def test_a_deadline_may_never_come() -> None:
    assert effective_deadline(math.inf, None).time_remaining() == math.inf  # type: ignore[union-attr]
