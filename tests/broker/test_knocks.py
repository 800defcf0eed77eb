"""Which stream is whose, without a connection."""

from __future__ import annotations

from pyvider_rpcplugin.services._knocks import Doors
from pyvider_rpcplugin.services._mailboxes import WINDOW
from pyvider_rpcplugin.services._messages import ConnInfo, Knock

YES = Knock(knock=True, ack=True)


def test_a_knock_is_answered_and_the_next_stream_is_for_it() -> None:
    doors = Doors()
    assert doors.open(3, 0) is None
    assert doors.knocked(3, 0) == ConnInfo(3, knock=YES)
    assert doors.stream_opened(1) == 3
    assert doors.stream_opened(1) is None


def test_streams_come_in_the_order_of_the_answers() -> None:
    doors = Doors()
    for number in (3, 4, 5):
        doors.open(number, 0)
    for number in (4, 5, 4, 3):
        doors.knocked(number, 0)
    assert [doors.stream_opened(1) for _ in range(5)] == [4, 5, 4, 3, None]


def test_a_knock_before_its_service_waits_for_it() -> None:
    doors = Doors()
    assert doors.knocked(3, 0) is None
    assert doors.stream_opened(1) is None
    assert doors.open(3, 2) == ConnInfo(3, knock=YES)
    assert doors.stream_opened(3) == 3


def test_a_knock_and_an_answer_count_for_five_seconds() -> None:
    doors = Doors()
    doors.knocked(3, 0)
    assert doors.open(3, WINDOW) is None
    doors.knocked(3, 10)
    assert doors.stream_opened(10 + WINDOW) is None


def test_what_is_served_no_longer_is_not_answered() -> None:
    doors = Doors()
    doors.open(3, 0)
    doors.close(3)
    assert doors.knocked(3, 0) is None


def test_floods_of_knocks_are_refused_beyond_a_bound() -> None:
    doors = Doors()
    for number in range(1024):
        assert doors.knocked(number, 0) is None
    refused = doors.knocked(5000, 0)
    assert refused is not None
    assert refused.knock is not None
    assert refused.knock.error
    assert doors.knocked(5000, WINDOW) is None
    doors.open(7, WINDOW)
    answers = [doors.knocked(7, WINDOW) for _ in range(2000)]
    granted = [a for a in answers if a is not None and a.knock is not None and not a.knock.error]
    assert len(granted) <= 1024
