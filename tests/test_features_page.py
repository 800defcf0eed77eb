"""The table of what go-plugin can do names, for each row, tests that are there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "features.md").read_text()
# What there is nothing to show for says so.
WITHOUT_TEST = ("not yet", "not run by us")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    """The functions at the top of a file."""
    module = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in module.body if isinstance(node, kinds))


def test_there_is_a_row_for_each_capability() -> None:
    assert [row[0] for row in rows()] == [str(number) for number in range(1, 49)]
    assert {len(row) for row in rows()} == {5}
    assert all(cell for row in rows() for cell in row)


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_row_is_shown_by_tests_that_are_there(row: list[str]) -> None:
    named = re.findall(r"`([\w/.]+)::(\w+)`", row[4])
    if not named:
        assert any(words in " ".join(row) for words in WITHOUT_TEST)
    for path, name in named:
        assert name.startswith("test_")
        assert Path(path).name.startswith("test_")
        assert name in functions_of(f"tests/{path}"), f"{path} has no {name}"
