"""The fuzzed targets on what has been found by them, and on a few inputs of each kind."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.machines import run
from tests.fuzz.names import SHARES
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

# (target, input): each of these has failed once.
FOUND = [
    # What is no UTF-8 in the record of a running plugin was no ConfigError.
    ("handshake", b'\xff{"p":{"Protocol":"gr\x87c"}}'),
    # The end of a stream that is closed was forgotten, unless its frame came in parts.
    (
        "differential",
        b"\xef\xe8L\xac\xc7\t\xc7\x02p\xa3O\xad\xc4\x98\x08u\xa1\xf5\x05\xd4tZ\xa4)S\r\xc2\x85\xb4\xef!P\xe7",
    ),
    # A field of a log line in place of a method of the record.
    ("logs", b'\xff{"@level":"warn","@message":"m","getMessage":1,"__class__":2}'),
    # An exception from the other side whose name is no UTF-8.
    ("messagepack", b"\x03\x82\xa5names\x91\xa7OSE\xc3ror\xa4args\x93\x02\xa2no\xa4file"),
]


def test_each_target_has_its_share_and_its_seeds() -> None:
    assert list(TARGETS) == list(SHARES) == list(seeds())


@pytest.mark.parametrize(("name", "octets"), FOUND)
def test_what_was_found_is_found_no_more(name: str, octets: bytes) -> None:
    TARGETS[name](octets)


@pytest.mark.parametrize("name", ["yamux", "broker", "handshake", "logs"])
def test_state_machines_hold(name: str) -> None:
    run(name, 30, by_chance=False)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_some_damaged_ones_do_no_harm(name: str) -> None:
    chance = random.Random(6)
    for octets in seeds()[name][:50]:
        TARGETS[name](octets)
        for _ in range(3):
            damaged = bytearray(octets)
            for _ in range(chance.randrange(1, 6)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            TARGETS[name](bytes(damaged))
