"""The page of benchmarks says what its results say."""

from __future__ import annotations

import json

from tests.bench.curves import quantiles
from tests.bench.peers import PEERS
from tests.bench.plots import COMPARED, NAMES, PAGE, RESULTS, TABLES, filled, parts_of_a_start
from tests.bench.startup import STARTERS


def test_the_tables_of_the_page_are_those_of_its_results() -> None:
    page = PAGE.read_text()
    assert filled(page, json.loads(RESULTS.read_text())) == page, "run `nox -s plots`"
    names = [*TABLES, *COMPARED]
    assert [name for name in names if f"<!-- made: {name} -->" not in page] == []


def test_a_table_without_results_stays_as_it_is() -> None:
    page = "before\n<!-- made: about -->\nthe old table\n<!-- end -->\nafter"
    assert filled(page, [{"calls": {}}]) == page
    text = filled(page, [{"about": {"python": "3.11"}}])
    assert "| python | 3.11 |" in text
    assert "old" not in text
    assert text.endswith("<!-- end -->\nafter")


def test_a_start_is_broken_down_where_all_of_its_parts_were_measured() -> None:
    seconds = {"floor-typed": 0.05, "floor": 0.07, "ours-asyncio": 0.1, "ours-tls-asyncio": 0.09}
    firsts = {name: {"first": value} for name, value in seconds.items()}
    results = {
        "startup": {"medians": firsts},
        "imports": {"medians": {"nothing": {"seconds": 0.01}}},
    }
    assert parts_of_a_start(results) == {}
    page = "<!-- made: breakdown -->\n<!-- end -->"
    assert filled(page, [results]) == page
    firsts["typed-tls-asyncio"] = {"first": 0.08}
    found = parts_of_a_start(results)
    assert [round(value) for value in found["generated code"].values()] == [10, 40, 20, 30, 0]
    assert [round(value) for value in found["typed service"].values()] == [10, 40, 30]
    assert "pictures/bench-breakdown.svg" in filled(page, [results])


def test_what_is_aimed_at_has_a_column_for_each_run() -> None:
    def run(*values: float | None) -> dict[str, object]:
        names = ("always", "once", "never")
        made = zip(names, values, strict=False)
        goals = [
            {"name": name, "value": value, "goal": 2, "at_most": False} for name, value in made
        ]
        return {"goals": goals, "about": {"python": "3.11", "load": str(values[0])}}

    page = "<!-- made: goals -->\n<!-- end -->\n<!-- made: about -->\n<!-- end -->"
    lines = filled(page, [run(2, 3, 1), run(2.5, 1, None), run(3, 1.5)]).splitlines()
    assert "| goal | aim | run 1 | run 2 | run 3 | reached |" in lines
    assert "| always | 2 | 2.00 | 2.50 | 3.00 | yes |" in lines
    assert "| once | 2 | 3.00 | 1.00 | 1.50 | in 1 of 3 |" in lines
    assert "| never | 2 | 1.00 | - | - | no |" in lines
    assert "| python | 3.11 | the same | the same |" in lines
    assert "| load | 2 | 2.5 | 3 |" in lines
    alone = filled(page, [run(None)]).splitlines()
    assert "| goal | aim | measured | reached |" in alone
    assert "| always | 2 | - | - |" in alone


def test_quantiles_are_values_that_were_measured() -> None:
    taken = quantiles(range(1001))
    assert (taken["0"], taken["0.5"], taken["0.99"], taken["0.999"]) == (0, 500, 990, 999)
    assert taken["1"] == 1000
    assert quantiles([]) == {}


def test_the_page_has_a_name_for_whatever_is_measured() -> None:
    assert {*PEERS, *STARTERS} - set(NAMES) == set()
