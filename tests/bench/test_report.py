"""The arithmetic and the text of the benchmark; nothing is measured here."""

from __future__ import annotations

from tests.bench.calls import CallResults, rotated
from tests.bench.report import Results, as_text, ratio, table
from tests.bench.startup import Samples
from tests.bench.workloads import WORKLOADS, count_for


def test_each_turn_begins_with_another_item_and_keeps_the_order() -> None:
    assert [rotated([1, 2, 3], turn) for turn in range(4)] == [
        [1, 2, 3],
        [2, 3, 1],
        [3, 1, 2],
        [1, 2, 3],
    ]
    assert rotated([], 5) == []


def test_the_amount_of_work_fills_the_time_and_suits_the_callers() -> None:
    assert count_for(WORKLOADS["unary_64"], rate=10_000, seconds=0.3) % 64 == 0
    assert count_for(WORKLOADS["unary_1"], rate=1000, seconds=0.3) == 300
    assert count_for(WORKLOADS["large_echo"], rate=0.1, seconds=0.3) == 1


def test_a_table_has_columns_as_wide_as_their_widest_cell() -> None:
    assert table([["name", "n"], ["a", "100"]]) == "name    n\n----  ---\na     100"


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(3, 2) == "1.50"
    assert ratio(None, 2) == ratio(3, None) == ratio(3, 0) == "-"


def test_the_text_sets_ratios_of_medians_beside_the_goals() -> None:
    rates = {"grpcio": [1.0, 100.0, 200.0], "ours-asyncio": [460.0, 460.0, 200.0]}
    rates["ours-trio"] = [200.0, 200.0]
    calls = CallResults({"unary_64": rates}, {}, {"purerpc-trio ping_pong": "ended"})
    [row] = [
        line
        for line in as_text(Results({"date": "today"}, calls=calls)).splitlines()
        if "4.5 / 3.8" in line
    ]
    assert row.split()[-12:-3] == ["4.60", "2.00", "1.00", "4.5", "/", "3.8", "yes", "/", "NO"]
    assert row.split()[-3:] == ["1.0-460.0", "/", "2.0-200.0"]
    assert "purerpc-trio ping_pong: ended" in as_text(Results({}, calls=calls))


def test_what_was_not_measured_leaves_a_gap_and_no_error() -> None:
    value = {"first": 0.1, "again": 0.09, "rss_kib": 2048, "pss_kib": 1024}
    startup = Samples({"grpcio": [value]}, {"floor": "?"})
    text = as_text(Results({}, calls=CallResults({"ping_pong": {}}, {}, {}), startup=startup))
    [row] = [line for line in text.splitlines() if line.startswith("grpcio  ") and "100.0" in line]
    assert row.split() == ["grpcio", "100.0", "90.0", "1.00", "-", "-", "-"]


def test_what_tls_costs_stands_beside_its_goals() -> None:
    plain = {"ours-asyncio": [100.0], "ours-trio": [100.0]}
    tls = {"ours-tls-asyncio": [85.0], "ours-tls-trio": [79.0]}
    calls = CallResults({"unary_64": plain | tls, "ping_pong": plain}, {}, {})
    text = as_text(Results({}, calls=calls))
    [row] = [line for line in text.splitlines() if line.endswith("yes / NO")]
    assert row.split()[-6:] == ["0.85", "0.79", "0.8", "yes", "/", "NO"]
    seconds = {"ours-asyncio": 0.4, "ours-tls-asyncio": 0.5}
    values = {
        name: [{"first": value, "again": value, "rss_kib": 1, "pss_kib": 1}]
        for name, value in seconds.items()
    }
    text = as_text(Results({}, startup=Samples(values, {})))
    [row] = [line for line in text.splitlines() if "tls-asyncio, times ours-asyncio" in line]
    assert row.split()[-6:-1] == ["1.25", "at", "most", "1.25", "yes"]


def test_what_typed_services_cost_stands_beside_generated_code() -> None:
    stub = {"ours-asyncio": [100.0], "ours-trio": [100.0]}
    typed = {"typed-asyncio": [99.0], "typed-trio": [110.0]}
    text = as_text(Results({}, calls=CallResults({"unary_1": stub | typed}, {}, {})))
    [row] = [line for line in text.splitlines() if line.endswith("NO / yes")]
    assert row.split()[-6:] == ["0.99", "1.10", "1", "NO", "/", "yes"]


def test_what_blocking_clients_have_of_it_is_said() -> None:
    rates = {"ours-asyncio": [100.0], "ours-blocking": [160.0]}
    text = as_text(Results({}, calls=CallResults({"unary_1": rates}, {}, {})))
    assert "blocking client, 1 caller: 1.60 times ours-asyncio (goal 1.5)" in text
