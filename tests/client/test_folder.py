from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvider_rpcplugin.client._folder import _PREFIX, remove_dead_socket, socket_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path, which pytest's own have not."""
    folder = tempfile.mkdtemp()
    yield Path(folder)
    shutil.rmtree(folder)


def listen(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_a_folder_is_private_and_vanishes_with_the_sockets_in_it(place: Path) -> None:
    with socket_folder(str(place)) as name:
        assert name is not None
        folder = Path(name)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with listen(folder / "s"):
            pass
    assert list(place.iterdir()) == []


def test_what_does_not_belong_there_is_never_removed(place: Path) -> None:
    with socket_folder(str(place)) as name:
        assert name is not None
        Path(name, "precious").touch()
    assert Path(name, "precious").exists()


def test_a_folder_that_is_in_use_is_left_alone_and_one_that_was_left_is_removed(
    place: Path,
) -> None:
    left = place / f"{_PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    unfinished = place / f"{_PREFIX}unfinished"
    unfinished.mkdir()
    other = place / "other"
    other.mkdir()
    (other / "lock").touch()
    (place / f"{_PREFIX}link").symlink_to(other)
    with socket_folder(str(place)) as first, socket_folder(str(place)) as second:
        assert first is not None
        assert second is not None
        assert os.path.isdir(first)
        assert not left.exists()
    assert unfinished.exists()
    assert (other / "lock").exists()


def test_a_plugin_does_without_where_no_folder_can_be_made(place: Path) -> None:
    with socket_folder(str(place / "nowhere")) as name:
        assert name is None


def test_a_temporary_folder_with_a_long_path_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = place / ("x" * 80)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    with socket_folder("") as name:
        assert name is not None
        assert os.path.dirname(name) == "/tmp"
    # One that was asked for is not exchanged for another.
    with socket_folder(str(deep)) as name:
        assert name is None


def test_a_dead_socket_is_removed_and_nothing_else(place: Path) -> None:
    path = place / "s"
    remove_dead_socket(str(path))
    with listen(path):
        remove_dead_socket(str(path))
        assert path.exists()
    remove_dead_socket(str(path))
    assert not path.exists()
    path.touch()
    remove_dead_socket(str(path))
    assert path.exists()
