"""What the broker remembers, without a clock and without a connection."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, strategies as st

from pyvider_rpcplugin.services._mailboxes import (
    MOST_ANNOUNCED,
    WINDOW,
    Heard,
    Mailboxes,
    Unreadable,
)
from pyvider_rpcplugin.services._messages import ConnInfo, Knock

HERE = ConnInfo(7, "unix", "/tmp/x")


def real():
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="b.proto", package="b", syntax="proto3")
    info = file.message_type.add(name="ConnInfo")
    knock = info.nested_type.add(name="Knock")
    optional = {"label": kind.LABEL_OPTIONAL}
    info.field.add(name="service_id", number=1, type=kind.TYPE_UINT32, **optional)
    info.field.add(name="network", number=2, type=kind.TYPE_STRING, **optional)
    info.field.add(name="address", number=3, type=kind.TYPE_STRING, **optional)
    info.field.add(
        name="knock", number=4, type=kind.TYPE_MESSAGE, type_name=".b.ConnInfo.Knock", **optional
    )
    knock.field.add(name="knock", number=1, type=kind.TYPE_BOOL, **optional)
    knock.field.add(name="ack", number=2, type=kind.TYPE_BOOL, **optional)
    knock.field.add(name="error", number=3, type=kind.TYPE_STRING, **optional)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("b.ConnInfo"))


REAL = real()
words = st.text(st.characters(exclude_categories=["Cs"]))
knocks = st.none() | st.builds(Knock, st.booleans(), st.booleans(), words)
infos = st.builds(ConnInfo, st.integers(0, 2**32 - 1), words, words, knocks)


@given(infos)
def test_a_message_is_what_protobuf_makes_of_it(info: ConnInfo) -> None:
    theirs = REAL(service_id=info.service_id, network=info.network, address=info.address)
    if info.knock is not None:
        theirs.knock.SetInParent()
        theirs.knock.knock = info.knock.knock
        theirs.knock.ack = info.knock.ack
        theirs.knock.error = info.knock.error
    assert info.SerializeToString() == theirs.SerializeToString()
    assert ConnInfo.FromString(theirs.SerializeToString()) == info


@given(st.binary(max_size=60), st.floats(0, 100))
def test_garbage_is_a_complaint_or_a_message(data: bytes, now: float) -> None:
    heard = Heard.FromString(data)
    assert isinstance(heard, (ConnInfo, Unreadable))
    boxes = Mailboxes()
    complaint = boxes.put(heard, now)
    if isinstance(heard, Unreadable):
        assert complaint is not None
        assert len(boxes) == 0


def test_numbers_begin_at_one_and_wrap_without_zero() -> None:
    boxes = Mailboxes()
    assert [boxes.next_id() for _ in range(3)] == [1, 2, 3]
    boxes._last_id = 0xFFFF_FFFF
    assert boxes.next_id() == 1


def test_what_was_announced_is_taken_once() -> None:
    boxes = Mailboxes()
    assert boxes.put(HERE, 0) is None
    taken = boxes.take(7, 1)
    assert taken is not None
    assert (taken.info, taken.fault) == (HERE, None)
    assert boxes.take(7, 1) is None


def test_what_nobody_dials_is_forgotten_after_five_seconds() -> None:
    boxes = Mailboxes()
    boxes.put(HERE, 10)
    boxes.put(ConnInfo(8, "tcp", "127.0.0.1:1"), 12)
    assert boxes.take(7, 10 + WINDOW) is None
    assert len(boxes) == 1
    assert boxes.take(8, 12 + WINDOW - 0.01) is not None
    # The number may be used again.
    assert boxes.put(HERE, 20) is None
    assert boxes.take(7, 20) is not None


def test_a_second_announcement_of_the_same_number_is_dropped() -> None:
    boxes = Mailboxes()
    boxes.put(HERE, 0)
    complaint = boxes.put(ConnInfo(7, "unix", "/tmp/other"), 1)
    assert complaint is not None
    assert "announced again" in complaint
    taken = boxes.take(7, 1)
    assert taken is not None
    assert taken.info is HERE


def test_a_flood_is_dropped_beyond_a_bound_and_passes() -> None:
    boxes = Mailboxes()
    for number in range(MOST_ANNOUNCED):
        assert boxes.put(ConnInfo(number, "unix", "/x"), 0) is None
    complaint = boxes.put(ConnInfo(MOST_ANNOUNCED, "unix", "/x"), 0)
    assert complaint is not None
    assert "others wait" in complaint
    assert len(boxes) == MOST_ANNOUNCED
    assert boxes.put(ConnInfo(MOST_ANNOUNCED, "unix", "/x"), WINDOW) is None
    assert len(boxes) == 1


@pytest.mark.parametrize(
    ("network", "address", "words"),
    [
        ("udp", "127.0.0.1:1", "'udp' is unknown"),
        ("", "", "'' is unknown"),
        ("unix", "", "no address"),
        ("unix", "/tmp/a\0b", "no address"),
        ("tcp", "1" * 5000, "no address"),
    ],
)
def test_where_nobody_can_connect_the_dialler_is_told_at_once(
    network: str, address: str, words: str
) -> None:
    boxes = Mailboxes()
    complaint = boxes.put(ConnInfo(3, network, address), 0)
    assert complaint is not None
    assert words in complaint
    assert len(complaint) < 200
    taken = boxes.take(3, 0)
    assert taken is not None
    assert taken.fault is not None
    assert words in taken.fault


def test_a_knock_without_multiplexing_is_a_complaint() -> None:
    complaint = Mailboxes().put(ConnInfo(3, knock=Knock(knock=True)), 0)
    assert complaint is not None
    assert "without reason" in complaint


def test_a_number_of_more_than_32_bits_is_cut_as_protobuf_does_it() -> None:
    assert ConnInfo.FromString(b"\x08\x80\x80\x80\x80\x10") == ConnInfo(0)
