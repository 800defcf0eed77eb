from __future__ import annotations

import logging

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.exception import HandshakeError
from pyvider_rpcplugin.handshake import choose_version, format_versions


@pytest.mark.parametrize(
    ("mine", "offered", "chosen"),
    [
        ({2, 3}, "3", 3),
        ({2, 3}, "1,2", 2),
        ({2, 3}, "", 2),
        ({2, 3}, None, 2),
        ({2, 3}, "9", 2),
        ({2, 3}, "3,x,2", 3),
        ([5, 6], "6,5", 6),
        ((5,), "+5", 5),
        ({2, 3}, "3_0,٣," + "3" * 5000, 2),
    ],
)
def test_the_highest_common_version_is_chosen_else_the_lowest_own(mine, offered, chosen):
    assert choose_version(mine, offered) == chosen


def test_what_is_no_number_is_logged_and_left_out(caplog):
    with caplog.at_level(logging.WARNING, "pyvider_rpcplugin"):
        assert choose_version({1}, "1,x,") == 1
        assert choose_version({1}, None) == 1
        assert choose_version({1}, "") == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "'x'" in caplog.messages[0]


def test_a_plugin_without_versions_is_an_error():
    with pytest.raises(HandshakeError, match="no version"):
        choose_version([], "1")


@given(st.sets(st.integers(0, 50), min_size=1), st.sets(st.integers(0, 50)))
def test_what_a_host_offers_is_understood(mine, theirs):
    chosen = choose_version(mine, format_versions(theirs))
    assert chosen == (max(mine & theirs) if mine & theirs else min(mine))


@given(st.text())
def test_any_offer_gets_one_of_the_own_versions(offered):
    assert choose_version({1, 2}, offered) in {1, 2}


def test_versions_are_offered_in_order_and_each_once():
    assert format_versions([6, 5, 6]) == "5,6"
    assert format_versions([]) == ""
