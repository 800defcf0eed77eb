"""Whether goals are reached, and what counts as a step back; nothing is measured here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import goals
from tests.bench.calls import CallResults
from tests.bench.curves import CurveResults
from tests.bench.goals import Figure, figures, keep, kept, worse
from tests.bench.report import Results, as_text
from tests.bench.startup import FLOOR, STARTERS, Samples
from tests.bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOTHING: dict[str, dict[str, list[float]]] = {name: {} for name in WORKLOADS}


def everything(calls: CallResults | None = None) -> Results:
    """A run of all sections, in which nothing could be measured but these calls."""
    nothing = Samples({}, {})
    return Results(
        {},
        calls=calls or CallResults(NOTHING, {}, {}),
        curves=CurveResults(CallResults({}, {}, {}), {}, {}),
        startup=nothing,
        many=nothing,
        idle=nothing,
    )


def values(results: Results) -> dict[str, float | None]:
    return {figure.name: figure.value for figure in figures(results)}


def test_a_goal_is_reached_or_not_exceeded() -> None:
    assert [Figure("rate", value, 2).reached for value in (2.0, 1.9, None)] == [True, False, None]
    assert [Figure("KiB", value, 2, at_most=True).reached for value in (2.0, 2.1)] == [True, False]


def test_what_is_worse_by_more_than_a_quarter_is_a_step_back() -> None:
    found = [
        Figure("rate", 3.1, 9),
        Figure("time", 1.3, 0.5, at_most=True),
        Figure("gone", None, 1),
    ]
    assert worse(found, {"rate": 4, "time": 1, "gone": 5}) == []
    assert worse(found, {"rate": 4.2, "time": 0.9}) == found[:2]
    assert worse(found, {}) == []


def test_what_was_better_than_its_goal_may_come_down_to_it() -> None:
    found = [Figure("rate", 1.6, 2), Figure("time", 1.3, 1, at_most=True)]
    assert worse(found, {"rate": 4, "time": 0.5}) == []
    found = [Figure("rate", 1.4, 2), Figure("time", 1.4, 1, at_most=True)]
    assert worse(found, {"rate": 4, "time": 0.5}) == found


def test_every_figure_that_was_reached_is_one_that_is_measured() -> None:
    names = [figure.name for figure in figures(everything())]
    assert len(set(names)) == len(names)
    assert kept().keys() - set(names) == set()


def test_what_was_measured_is_kept_and_the_rest_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(goals, "REACHED", tmp_path / "reached.json")
    goals.REACHED.write_text('{"a": 1.0, "b": 2.0}')
    keep([Figure("b", 2.5, 9), Figure("a", None, 9), Figure("c", 3.14159, 9)])
    assert kept() == {"a": 1.0, "b": 2.5, "c": 3.142}


def test_each_way_to_call_is_set_beside_what_its_goal_names() -> None:
    rates = {name: dict(found) for name, found in NOTHING.items()}
    rates["unary_64"] = {"ours-tls-trio": [9.0], "grpcio-tls": [3.0], "ours-trio": [10.0]}
    rates["unary_1"] = {"typed-asyncio": [8.0], "to_process-asyncio": [10.0]}
    rates["unary_1"] |= {"ours-trio": [4.5], "bare-trio": [9.0]}
    found = values(everything(CallResults(rates, {}, {})))
    assert found["unary 32 B, 64 callers, mutual TLS, trio, times grpcio over TLS"] == 3
    assert found["typed unary 32 B, 1 caller, asyncio, times anyio.to_process"] == 0.8
    assert found["unary 32 B, 1 caller, trio, times octets on a socket"] == 0.5
    assert found["unary 32 B, 64 callers, trio, times grpcio"] is None


def test_a_thousand_streams_are_compared_with_64_callers_and_their_own_median() -> None:
    calls = CallResults(
        {"callers_64": {"ours-trio": [100.0]}, "callers_1000": {"ours-trio": [70.0]}}, {}, {}
    )
    curves = CurveResults(calls, {}, {"latency_1000": {"ours-trio": [2.0, 9.0, 2.5]}})
    found = values(Results({}, curves=curves))
    assert found["1,000 streams, trio: the rate, times that of 64 callers"] == 0.7
    assert found["1,000 streams, trio: the slowest call, times the median"] == 2.5
    assert found["1,000 streams, asyncio: the slowest call, times the median"] is None


def test_times_and_memory_are_set_beside_what_their_goals_name() -> None:
    assert [
        other
        for starter in STARTERS.values()
        for other, _ in (*starter.goals, *filter(None, [starter.memory_goal]))
        if other not in STARTERS
    ] == []
    many = Samples({"ours-tls-asyncio": [{"seconds": 6.0}], FLOOR: [{"seconds": 3.0}]}, {})
    idle = Samples({"stream / ours-trio": [{"server": 5.0, "client": 1.0}]}, {})
    found = values(Results({}, many=many, idle=idle))
    assert found["50 plugins, asyncio, times the floor"] == 2
    assert found["memory of an idle stream, trio, KiB"] == 5


def test_the_text_ends_with_all_goals_and_what_was_reached_before() -> None:
    rates = {"unary_64": {"ours-asyncio": [100.0], "grpcio": [100.0]}}
    last = as_text(Results({}, calls=CallResults(rates, {}, {}))).split("\n\n")[-1].splitlines()
    [row] = [line for line in last if line.startswith("unary 32 B, 64 callers, asyncio")]
    assert row.split()[-5:-2] == ["1.00", "4.5", "NO"]
    assert row.endswith("WORSE")
