"""Finding plugins in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvider_rpcplugin import ConfigError, discover


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["app-b", "app-a", "other", ".app-hidden", "app-not-executable"]
    (tmp_path / "deeper").mkdir()
    for name in [*names, "deeper/app-c"]:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o644 if "not" in name else 0o755)
    (tmp_path / "app-folder").mkdir()
    (tmp_path / "app-broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "app-link").symlink_to(tmp_path / "other")
    return tmp_path


def test_programs_are_found_in_order_and_nothing_else_is(folder):
    assert discover("app-*", folder) == [str(folder / f"app-{x}") for x in ("a", "b", "link")]
    assert discover("app-[ab]", str(folder)) == [str(folder / "app-a"), str(folder / "app-b")]
    assert discover("*/app-?", folder) == [str(folder / "deeper" / "app-c")]
    assert discover(".app-*", folder) == [str(folder / ".app-hidden")]
    assert discover("nothing-*", folder) == []


def test_the_paths_are_absolute_whatever_the_folder_was(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for here in (".", "", Path("deeper") / ".."):
        assert discover("other", here) == [str(folder / "other")]


@pytest.mark.parametrize("pattern", ["", "**", "**/app-*", "../app-*", "/bin/*"])
def test_a_pattern_of_another_kind_is_refused(folder, pattern):
    with pytest.raises(ConfigError) as caught:
        discover(pattern, folder)
    assert repr(pattern) in caught.value.message


def test_a_folder_that_cannot_be_looked_into_is_an_error(folder):
    for wrong in (folder / "no such folder", folder / "other"):
        with pytest.raises(ConfigError, match="cannot look for plugins in"):
            discover("*", wrong)
