"""Compressed messages."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.rpc._compression import ACCEPTED, ENCODINGS, accepted

names = pytest.mark.parametrize("name", ["gzip", "deflate"])


@names
def test_messages_survive_the_way(name: str) -> None:
    encoding = ENCODINGS[name]

    @given(st.binary())
    def check(data: bytes) -> None:
        assert encoding.decompress(encoding.compress(data), len(data)) == data
        assert encoding.decompress(encoding.compress(data), -1) == data

    check()


def test_the_formats_are_those_of_the_standard_library() -> None:
    assert gzip.decompress(ENCODINGS["gzip"].compress(b"data" * 9)) == b"data" * 9
    assert zlib.decompress(ENCODINGS["deflate"].compress(b"data" * 9)) == b"data" * 9
    assert ENCODINGS["gzip"].decompress(gzip.compress(b"x"), 1) == b"x"
    assert ENCODINGS["deflate"].decompress(zlib.compress(b"x"), 1) == b"x"


@names
def test_a_bomb_is_not_unpacked_beyond_the_limit(name: str) -> None:
    encoding = ENCODINGS[name]
    bomb = encoding.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(OverflowError, match="more than 1000 octets"):
        encoding.decompress(bomb, 1000)


@names
@pytest.mark.parametrize("damage", ["cut", "extended", "garbage", "empty"])
def test_malformed_content_is_refused(name: str, damage: str) -> None:
    encoding = ENCODINGS[name]
    good = encoding.compress(b"data" * 100)
    bad = {"cut": good[:-1], "extended": good + b"!", "garbage": b"\xff" * 20, "empty": b""}[damage]
    with pytest.raises(ValueError, match=name):
        encoding.decompress(bad, 1000)


def test_what_is_accepted_is_a_list() -> None:
    assert accepted([ACCEPTED]) == {"identity", "gzip", "deflate"}
    assert accepted(["gzip , br", "zstd"]) == {"gzip", "br", "zstd"}
