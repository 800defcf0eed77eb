"""Finding plugins in folders: by the names of programs, and by manifests."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import sys
from pathlib import Path

import pytest

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    InstalledPlugins,
    PluginProgram,
    SecurityError,
    discover,
    plugin_client,
)
from tests.plugins import FOLDER


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


def paths(found: InstalledPlugins) -> dict[str, str]:
    return {name: plugin.path for name, plugin in found.items()}


def test_programs_are_found_in_order_and_nothing_else_is(folder):
    found = discover("app-*", folder)
    assert paths(found) == {x: str(folder / f"app-{x}") for x in ("a", "b", "link")}
    assert list(found) == ["a", "b", "link"]
    found = discover("app-[ab]", str(folder))
    assert paths(found) == {f"app-{x}": str(folder / f"app-{x}") for x in "ab"}
    assert paths(discover("*/app-c", folder)) == {"deeper": str(folder / "deeper" / "app-c")}
    assert list(discover(".app-*", folder)) == ["hidden"]
    assert not discover("nothing-*", folder)


def test_the_paths_are_absolute_whatever_the_folder_was(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for here in (".", "", Path("deeper") / ".."):
        assert paths(discover("other", here)) == {"other": str(folder / "other")}


@pytest.mark.parametrize("pattern", ["", "**", "**/app-*", "../app-*", "/bin/*"])
def test_a_pattern_of_another_kind_is_refused(folder, pattern):
    with pytest.raises(ConfigError) as caught:
        discover(pattern, folder)
    assert repr(pattern) in caught.value.message


def test_a_folder_that_cannot_be_looked_into_is_an_error(folder):
    for wrong in (folder / "no such folder", folder / "other"):
        with pytest.raises(ConfigError, match="cannot look for plugins in"):
            discover("*", wrong)


def test_somewhere_has_to_be_looked(folder):
    with pytest.raises(ConfigError, match="nothing to look for plugins in"):
        discover()
    with pytest.raises(ConfigError, match="none was given"):
        discover("app-*", entry_points=True)


def test_without_a_pattern_only_manifests_count(folder):
    assert not discover(folder=folder)
    (folder / "other.plugin.toml").touch()
    assert list(discover(folder=folder)) == ["other"]


def test_names_that_are_there_twice_hide_no_other(folder, caplog):
    for place in ("one", "two"):
        (folder / place).mkdir()
        for name in ("same", place):
            (folder / place / name).touch(0o755)
    places = [folder / "one", folder / "two"]
    with caplog.at_level(logging.WARNING, "pyvider_rpcplugin"):
        found = discover("*", places)
    assert list(found) == ["one", "two"]
    assert "same" not in found
    [error] = found.errors
    for place in places:
        assert str(place / "same") in error.message
    assert "another name" in str(error.hint)
    assert error.message in caplog.text
    with pytest.raises(ConfigError, match="2 plugins are called 'same'"):
        _ = found["same"]
    with pytest.raises(ConfigError, match="2 plugins are called 'same'"):
        discover("*", places, strict=True)


def test_a_name_that_is_not_there_is_a_clear_error(folder):
    found = discover("app-*", folder)
    with pytest.raises(KeyError) as caught:
        _ = found["c"]
    assert isinstance(caught.value, ConfigError)
    assert str(caught.value) == "no plugin is called 'c'\nHint: Installed: a, b, link."
    assert found.get("c") is None
    assert repr(found) == "<InstalledPlugins a, b, link>"


def test_what_was_found_in_two_places_is_put_together(folder):
    both = discover("app-a", folder) | discover("app-b", folder)
    assert list(both) == ["app-a", "app-b"]
    (folder / "app-a.plugin.toml").write_text("wrong = 1")
    both = discover("app-*", folder) | discover("other", folder)
    assert list(both) == ["b", "link", "other"]
    assert "a" not in both
    assert len(both.errors) == 1
    twice = discover("other", folder) | discover("other", folder)
    assert not twice
    assert "2 plugins are called 'other'" in twice.errors[0].message


# Manifests.


def manifest(folder: Path, text: str, name: str = "app-a") -> PluginProgram:
    (folder / f"{name}.plugin.toml").write_text(text)
    found = discover("app-*", folder, strict=True)
    [plugin] = [one for one in found.values() if one.source == "manifest"]
    return plugin


def test_a_manifest_says_what_a_program_does_not(folder):
    digest = hashlib.sha256((folder / "app-a").read_bytes()).hexdigest()
    plugin = manifest(
        folder,
        f'name = "thumbnails"\nversion = "1.2"\ndescription = "Makes them small."\n'
        f'protocol_versions = [1, 2]\nchecksum = "sha256:{digest}"\nargs = ["--fast"]\n',
    )
    assert (plugin.name, plugin.version) == ("thumbnails", "1.2")
    assert plugin.description == "Makes them small."
    assert plugin.protocol_versions == (1, 2)
    assert plugin.secure is not None
    assert plugin.secure.digest.hex() == digest
    assert plugin.path == str(folder / "app-a.plugin.toml")
    # The program is listed once.
    assert list(discover("app-*", folder)) == ["b", "link", "thumbnails"]


async def test_what_is_started_is_the_program_and_its_arguments(folder):
    plugin = manifest(folder, 'program = "deeper/app-c"\nargs = ["x"]', "app-else")
    assert plugin.name == "else"
    prepared = await plugin.prepare()
    assert prepared.command == [str(folder / "deeper" / "app-c"), "x"]
    assert prepared.env == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("author = '1'", "unknown field `author`"),
        ("version = 1", "version: expected `str`, got `int`"),
        ("protocol_versions = 1", "protocol_versions: expected `array`, got `int`"),
        ("protocol_versions = [-1]", "]: expected `int` >= 0"),
        ("version = ", "it is not TOML"),
        ("version = " + "[" * 9999, "it is not TOML"),
        ("name = 'a b'", "name: 'a b' is no name"),
        ("program = '../x'", "program: ../x is elsewhere"),
        ("program = '/bin/sh'", "program: /bin/sh is elsewhere"),
        ("program = 'x'", "program: there is no file"),
        ("program = 'app-not-executable'", "is not executable"),
        ("checksum = 'abc'", "checksum: 'abc' is no algorithm"),
        ("checksum = 'sha256:abc'", "checksum: the digest"),
        ("environment = ['x']", "environment: "),
        ("environment = {}", "environment: "),
        ("program = 'script.py'\nenvironment = ['a\\nb']", "more than one line"),
    ],
)
def test_a_bad_manifest_is_an_error_that_names_the_file_and_the_field(folder, text, said):
    path = folder / "app-a.plugin.toml"
    path.write_text(text.replace("'a\\nb'", '"a\\nb"'))
    (folder / "script.py").touch()
    found = discover("app-*", folder)
    # Without what the manifest should have said, its program is not started; the others are there.
    assert [name for name in found if name != "a b"] == ["b", "link"]
    [error] = found.errors
    assert error.message.startswith(f"the manifest {path} is wrong: ")
    assert said in error.message
    assert error.hint
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(ConfigError, match="is wrong"):
        discover("app-*", folder, strict=True)


async def test_an_archive_and_an_environment_beside_the_manifest(folder):
    (folder / "app-z.pyz").touch()
    plugin = manifest(folder, "program = 'app-z.pyz'", "app-z")
    assert (await plugin.prepare()).command == [sys.executable, str(folder / "app-z.pyz")]
    (folder / "app-z.plugin.toml").unlink()
    (folder / "app-y.py").touch()
    plugin = manifest(folder, "environment = 'venv'", "app-y")
    with pytest.raises(ConfigError, match=f"{folder}/venv is no Python environment"):
        await plugin.prepare()
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "python3").symlink_to(sys.executable)
    prepared = await plugin.prepare()
    assert prepared.command == [str(folder / "venv/bin/python3"), str(folder / "app-y.py")]


def test_a_manifest_without_a_program_says_which_is_missing(folder):
    (folder / "app-z.plugin.toml").touch()
    found = discover("app-*", folder)
    with pytest.raises(ConfigError, match=r"no program .*app-z beside it"):
        _ = found["z"]


# Started by name.


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with the echo plugin as a script, and its manifest."""
    path = str(FOLDER / "echo_plugin.py")
    code = f"import runpy\nrunpy.run_path({path!r}, run_name='__main__')\n"
    (tmp_path / "echo.py").write_text(code)
    return tmp_path


def described(folder: Path, **fields: object) -> PluginProgram:
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    (folder / "echo.plugin.toml").write_text("\n".join(lines))
    return discover(folder=folder, strict=True)["echo"]


@pytest.mark.process
async def test_a_plugin_is_started_by_its_name_with_what_its_manifest_says(scripts):
    digest = hashlib.sha256((scripts / "echo.py").read_bytes()).hexdigest()
    plugin = described(scripts, checksum=f"sha256:{digest}", protocol_versions=[1, 7])
    async with plugin_client(plugin) as client:
        assert client.name == "echo"
        assert client.negotiated_version == 1
        await client.ping()
    (scripts / "echo.py").write_text("raise SystemExit(3)")
    with pytest.raises(SecurityError, match="checksum"):
        await plugin_client(plugin).start()


async def test_a_plugin_without_a_common_version_is_not_started(scripts):
    plugin = described(scripts, protocol_versions=[3, 4])
    # A host that says nothing offers what the plugin has; one that does, what it has itself.
    settings = plugin_client(plugin)._settings
    assert settings is not None
    assert settings.protocol_versions == (3, 4)
    client = plugin_client(plugin, protocol_versions=[1, 2])
    with pytest.raises(HandshakeError) as caught:
        await client.start()
    assert "serves the versions 3, 4" in caught.value.message
    assert "this host has 1, 2" in caught.value.message
    assert client.pid is None


@pytest.mark.process
async def test_what_a_pattern_finds_is_started_by_name(scripts):
    program = scripts / "app-echo"
    program.write_text(f"#!{sys.executable}\n{(scripts / 'echo.py').read_text()}")
    program.chmod(0o755)
    async with plugin_client(discover("app-*", scripts)["echo"]) as client:
        await client.ping()
