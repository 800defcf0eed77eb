"""Length-prefixed messages, in any split."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.rpc._messages import MessageBuffer, MessageTooLarge, message_prefix


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def drain(buffer: MessageBuffer) -> list[tuple[bool, bytes]]:
    taken = []
    while (one := buffer.take()) is not None:
        taken.append(one[:2])
    return taken


messages = st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=8)
cuts = st.lists(st.integers(0, 10_000), max_size=30)


@given(messages, cuts, st.booleans(), st.booleans())
def test_messages_come_out_as_they_went_in_however_they_were_cut(
    sent: list[tuple[bool, bytes]], cuts: list[int], eagerly: bool, views: bool
) -> None:
    data = b"".join(
        message_prefix(len(content), compressed=compressed) + content
        for compressed, content in sent
    )
    buffer = MessageBuffer(-1)
    received = []
    for part in split(data, cuts):
        buffer.append(memoryview(part) if views else part)
        if eagerly:
            received += drain(buffer)
    received += drain(buffer)
    assert received == sent
    assert not buffer.partial


@given(messages, cuts, st.lists(st.sampled_from(["ready", "credit", "take"]), max_size=60))
def test_every_octet_is_given_back_exactly_once(
    sent: list[tuple[bool, bytes]], cuts: list[int], actions: list[str]
) -> None:
    data = b"".join(message_prefix(len(content)) + content for _, content in sent)
    buffer = MessageBuffer(-1)
    credited = 0
    appended = 0
    parts = split(data, cuts)
    for number in range(max(len(parts), len(actions))):
        if number < len(parts):
            buffer.append(parts[number])
            appended += len(parts[number])
        action = actions[number] if number < len(actions) else "take"
        if action == "ready":
            assert buffer.ready in {True, False}
        elif action == "credit":
            credited += buffer.credit_all()
            assert credited == appended
        else:
            taken = buffer.take()
            credited += 0 if taken is None else taken[2]
        assert credited <= appended
    while (taken := buffer.take()) is not None:
        credited += taken[2]
    assert credited == len(data)


@given(messages, cuts)
def test_it_is_ready_exactly_when_a_message_can_be_taken(
    sent: list[tuple[bool, bytes]], cuts: list[int]
) -> None:
    data = b"".join(message_prefix(len(content)) + content for _, content in sent)
    buffer = MessageBuffer(-1)
    for part in split(data, cuts):
        buffer.append(part)
        ready = buffer.ready
        assert (buffer.take() is not None) == ready


def test_the_end_is_something_to_say() -> None:
    buffer = MessageBuffer(-1)
    assert not buffer.ready
    buffer.eof = True
    assert buffer.ready
    assert buffer.take() is None


def test_a_message_over_the_limit_is_refused_by_its_prefix_alone() -> None:
    buffer = MessageBuffer(10)
    buffer.append(message_prefix(10) + bytes(10) + message_prefix(11))
    assert buffer.take() == (False, bytes(10), 15)
    assert buffer.ready
    with pytest.raises(MessageTooLarge, match="11 octets, at most 10"):
        buffer.take()


@pytest.mark.parametrize("size", [0, 1, 2**32 - 1])
def test_a_prefix_is_a_flag_and_a_length(size: int) -> None:
    assert message_prefix(size) == b"\0" + size.to_bytes(4, "big")
    assert message_prefix(size, compressed=True) == b"\1" + size.to_bytes(4, "big")


def test_what_nobody_wants_is_forgotten() -> None:
    buffer = MessageBuffer(-1)
    buffer.append(b"\0\0\0\0\5he")
    buffer.append(b"llo")
    buffer.clear()
    assert not buffer.partial
    assert buffer.take() is None
    assert buffer.credit_all() == 0


def test_frames_of_few_octets_are_not_kept_as_so_many_objects() -> None:
    message = message_prefix(100_000) + bytes(100_000)
    buffer = MessageBuffer(-1)
    tracemalloc.start()
    try:
        for start in range(0, len(message), 2):
            buffer.append(message[start : start + 2])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * len(message)
    taken = buffer.take()
    assert taken is not None
    assert taken[1] == bytes(100_000)
