"""The page on limits names, for each bound, tests that are there, and settings that are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyvider_rpcplugin.config import setting_names
from tests.test_features_page import functions_of

PAGE = (Path(__file__).parent.parent.parent / "docs" / "limits.md").read_text()


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_bound_is_shown_by_tests_that_are_there(row: list[str]) -> None:
    what, who, _bound, setting, _happens, shown = row
    assert what
    assert who in {"both", "host", "plugin", "who connects"}
    named = re.findall(r"`([\w/.]+)::(\w+)`", shown)
    assert named
    for path, name in named:
        assert name in functions_of(f"tests/{path}"), f"{path} has no {name}"
    for one in re.findall(r"PLUGIN_\w+", setting):
        assert one.removeprefix("PLUGIN_").lower() in setting_names()
