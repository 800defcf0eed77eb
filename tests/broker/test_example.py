"""The page on the broker shows an example; that it runs is tested with the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import shown

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "broker"


@pytest.mark.parametrize("name", ["survey_plugin.py", "host.py"])
def test_the_page_shows_the_example_as_it_is(name: str) -> None:
    assert shown("broker.md", name) == (EXAMPLE / name).read_text()
