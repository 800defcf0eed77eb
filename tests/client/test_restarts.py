"""When a plugin that has ended is started again."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin import ConfigError
from pyvider_rpcplugin.client._restarts import Restarts
from pyvider_rpcplugin.client.supervision import PoolPolicy, RestartPolicy


def test_each_restart_within_the_window_waits_longer() -> None:
    policy = RestartPolicy(
        max_restarts=6, initial_backoff=1, multiplier=2, max_backoff=10, jitter=0
    )
    restarts = Restarts(policy, random=lambda: 0.0)
    assert [restarts.next_pause(0) for _ in range(7)] == [1, 2, 4, 8, 10, 10, None]


def test_restarts_before_the_window_do_not_count() -> None:
    policy = RestartPolicy(max_restarts=2, window=60, initial_backoff=1, jitter=0)
    restarts = Restarts(policy, random=lambda: 0.0)
    assert [restarts.next_pause(now) for now in (0, 30, 59)] == [1, 2, None]
    assert restarts.next_pause(60) == 2
    assert restarts.next_pause(200) == 1


def test_one_can_begin_anew() -> None:
    restarts = Restarts(RestartPolicy(max_restarts=1, jitter=0), random=lambda: 0.0)
    assert restarts.next_pause(0) is not None
    assert restarts.next_pause(0) is None
    restarts.forget()
    assert restarts.next_pause(0) is not None


def test_the_plugins_of_a_pool_share_what_is_allowed() -> None:
    policy = RestartPolicy(max_restarts=2, initial_backoff=1, jitter=0)
    restarts = Restarts(policy, share=2, random=lambda: 0.0)
    assert [restarts.next_pause(0) for _ in range(5)] == [1, 1, 2, 2, None]


@given(
    number=st.floats(0, 1, exclude_max=True),
    jitter=st.floats(0, 1),
    count=st.integers(1, 100),
)
def test_pauses_stay_within_their_bounds(number: float, jitter: float, count: int) -> None:
    policy = RestartPolicy(max_restarts=count, jitter=jitter, multiplier=1e9)
    restarts = Restarts(policy, random=lambda: number)
    for _ in range(count):
        pause = restarts.next_pause(0)
        assert pause is not None
        assert 0 <= pause <= policy.max_backoff * (1 + jitter)
    assert restarts.next_pause(0) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_restarts": 0}, "max_restarts=0"),
        ({"window": 0}, "window=0"),
        ({"multiplier": 0.5}, "multiplier=0.5"),
        ({"jitter": 2}, "jitter=2"),
        ({"calls": "perhaps"}, "calls='perhaps'"),
        ({"health_interval": -1}, "health_interval=-1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"RestartPolicy: {named}"):
        RestartPolicy(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": 3, "max_size": 2}, {"spares": -1}, {"max_age": 0}]
)
def test_a_pool_that_makes_no_sense_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="PoolPolicy: "):
        PoolPolicy(**options)
