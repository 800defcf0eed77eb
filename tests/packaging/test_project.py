"""What several files say of the project is the same in all of them."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
KINDS = [kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]]
FRAGMENTS = ROOT / PROJECT["tool"]["towncrier"]["directory"]


def pythons() -> list[str]:
    """The versions that the tests are run with."""
    found = re.search(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert found is not None
    versions: list[str] = ast.literal_eval(found[1])
    return versions


@pytest.mark.parametrize("name", ["docs/compatibility.md", ".github/workflows/ci.yml"])
def test_the_versions_of_python_are_said(name):
    if not (ROOT / name).is_file():
        pytest.skip("this is no checkout")
    text = (ROOT / name).read_text()
    assert [version for version in pythons() if version not in text] == []


def test_the_oldest_and_the_newest_python_are_said_in_the_readme():
    oldest, *_, newest = pythons()
    assert f"Python {oldest} to {newest}" in (ROOT / "README.md").read_text()
    assert PROJECT["project"]["requires-python"] == f">= {oldest}"


def test_each_python_is_said_to_package_indexes():
    prefix = "Programming Language :: Python :: 3."
    said = [word for word in PROJECT["project"]["classifiers"] if word.startswith(prefix)]
    assert said == [f"Programming Language :: Python :: {version}" for version in pythons()]


@pytest.mark.parametrize("path", sorted(FRAGMENTS.iterdir()), ids=lambda path: path.name)
def test_a_file_of_the_changelog_is_named_as_it_should_be_and_short(path):
    assert re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(KINDS)})\.md", path.name)
    text = path.read_text()
    assert text.endswith(".\n")
    assert len(text) < 300
