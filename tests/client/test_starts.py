from __future__ import annotations

import anyio
import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin._patience import cores
from pyvider_rpcplugin.client._starts import STARTS_PER_CORE, Retries, turn_to_start
from pyvider_rpcplugin.config import load_settings


async def test_only_so_many_plugins_start_at_a_time() -> None:
    limit = STARTS_PER_CORE * cores()
    starting: list[int] = []
    go_on = anyio.Event()

    async def start(number: int) -> None:
        async with turn_to_start() as has_started:
            starting.append(number)
            await go_on.wait()
            has_started()
            has_started()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            for number in range(limit + 3):
                tg.start_soon(start, number)
            await anyio.wait_all_tasks_blocked()
            assert len(starting) == limit
            go_on.set()
    assert len(starting) == limit + 3


async def test_a_turn_ends_with_the_plugin_that_never_started() -> None:
    with anyio.fail_after(5):
        for _ in range(STARTS_PER_CORE * cores() + 1):
            with pytest.raises(ZeroDivisionError):
                async with turn_to_start():
                    raise ZeroDivisionError


async def test_retries_double_their_pauses_up_to_a_bound_and_then_end() -> None:
    retries = Retries(
        load_settings(
            overrides={
                "client_max_retries": 4,
                "client_initial_backoff_ms": 100,
                "client_max_backoff_ms": 300,
                "client_retry_jitter_ms": 0,
            },
            side="host",
        )
    )
    assert [retries.next_pause() for _ in range(5)] == [0.1, 0.2, 0.3, 0.3, None]


async def test_retries_can_be_turned_off_and_end_with_their_time() -> None:
    assert (
        Retries(load_settings(overrides={"client_retry_enabled": False}, side="host")).next_pause()
        is None
    )
    short = Retries(
        load_settings(
            overrides={"client_retry_total_timeout_s": 0.05, "client_retry_jitter_ms": 0},
            side="host",
        )
    )
    assert short.next_pause() is None
    # A wait for the starts of others is not counted.
    before = short.seconds_left
    short.wait_longer(10)
    assert short.seconds_left > before + 9
    assert short.next_pause() == 0.2


@given(failures=st.integers(1, 200), jitter=st.integers(0, 1000))
def test_pauses_stay_in_their_bounds(failures: int, jitter: int) -> None:
    async def check() -> None:
        retries = Retries(
            load_settings(
                overrides={"client_max_retries": 10_000, "client_retry_jitter_ms": jitter},
                side="host",
            )
        )
        for _ in range(failures):
            pause = retries.next_pause()
            assert pause is not None
            assert 0.1 <= pause <= 5 + jitter / 1000

    anyio.run(check, backend="trio")
