"""What docs/discovery.md shows, works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pyvider_rpcplugin import discover, python_plugin
from pyvider_rpcplugin.discovery._script import script_metadata
from tests.pages import DOCS, run_shown, shown

PAGE = "discovery.md"


def test_listing_and_starting_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "myapp-plugin-thumbnails").touch(mode=0o755)
    # The manifest of the page, but for the checksum, which is that of another program.
    [fields] = re.findall(r"```toml\n(name.*?)```", (DOCS / PAGE).read_text(), re.DOTALL)
    (tmp_path / "myapp-plugin-thumbnails.plugin.toml").write_text(fields)
    names: dict[str, Any] = {"folder": tmp_path}
    exec(shown(PAGE, "find.py"), names)
    assert "thumbnails 1.4.0 Makes images small.\n" in capsys.readouterr().out
    assert names["client"].name == "thumbnails"
    assert names["plugins"]["thumbnails"].protocol_versions == (1, 2)
    exec(shown(PAGE, "wrong.py"), names)
    assert names["plugin"] is names["plugins"]["thumbnails"]


def test_each_field_of_a_manifest_is_on_the_page() -> None:
    from pyvider_rpcplugin.discovery._manifest import _Manifest

    table = re.findall(r"^\| (`.*?) \|", (DOCS / PAGE).read_text(), re.MULTILINE)
    fields = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert set(_Manifest.__struct_fields__) <= fields


def test_plugins_with_environments_of_their_own() -> None:
    names: dict[str, Any] = {}
    exec(shown(PAGE, "own.py"), names)
    assert names["client"].name == "charts"
    said = script_metadata(shown(PAGE, "charts.py").encode(), "charts.py")
    assert said is not None
    assert said.requires_python == ">= 3.11"
    assert [one.split()[0] for one in said.dependencies] == ["pyvider-rpcplugin", "pillow"]


async def test_making_an_environment_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = python_plugin("charts.py", env=[], cache=tmp_path, installer="pip")
    await run_shown(PAGE, "prepare.py", plugin=plugin)
    kinds = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert kinds == [["creating", "charts"], ["ready", "charts"]]
    assert discover(folder=tmp_path) == {}
