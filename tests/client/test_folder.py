from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pyvider_rpcplugin.client._folder import remove_dead_socket, socket_folder
from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport._folder import PREFIX

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
    left = place / f"{PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    unfinished = place / f"{PREFIX}unfinished"
    unfinished.mkdir()
    other = place / "other"
    other.mkdir()
    (other / "lock").touch()
    (place / f"{PREFIX}link").symlink_to(other)
    with socket_folder(str(place)) as first, socket_folder(str(place)) as second:
        assert first is not None
        assert second is not None
        assert os.path.isdir(first)
        assert not left.exists()
    assert unfinished.exists()
    assert (other / "lock").exists()


def test_a_folder_that_was_asked_for_and_cannot_be_had_is_an_error(place: Path) -> None:
    for parent, words in (("nowhere", "no such file"), ("x" * 90, "too long")):
        with (
            pytest.raises(TransportError, match=words) as caught,
            socket_folder(f"{place}/{parent}"),
        ):
            pass
        assert caught.value.hint
        assert parent in caught.value.message


def test_a_temporary_folder_that_is_not_there_is_passed_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(place / "nowhere"))
    monkeypatch.setenv("TEMP", str(place))
    with socket_folder("") as name:
        assert name is not None
        assert Path(name).parent == place


def test_where_anybody_may_exchange_it_no_folder_is_made_unless_it_is_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(place))
    with socket_folder("") as name:
        assert name is not None
        assert os.path.dirname(name) == "/tmp"
    with socket_folder(str(place)) as name:
        assert name is not None
        assert Path(name).parent == place
    assert "sticky" in caplog.text
    caplog.clear()
    place.chmod(0o1777)
    with socket_folder("") as name:
        assert name is not None
        assert Path(name).parent == place
    assert not caplog.text


def test_a_group_may_use_it_where_that_is_asked_for(place: Path) -> None:
    with socket_folder(str(place), str(os.getgid())) as name:
        assert name is not None
        found = Path(name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o770, os.getgid())
    with pytest.raises(TransportError, match="no such group"), socket_folder(str(place), "nobodys"):
        pass
    assert list(place.iterdir()) == []


def test_a_temporary_folder_with_a_long_path_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = place / ("x" * 80)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    with socket_folder("") as name:
        assert name is not None
        assert os.path.dirname(name) == "/tmp"
    # One that was asked for is not exchanged for another: the plugin's socket alone fits into it.
    deep = place / ("x" * 40)
    deep.mkdir()
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


def test_a_folder_whose_maker_was_killed_before_it_locked_it_is_removed_later(place: Path) -> None:
    new, old = place / f"{PREFIX}new", place / f"{PREFIX}old"
    for folder in (new, old):
        folder.mkdir()
        (folder / "lock-").touch()
    os.utime(old, (0, 0))
    with socket_folder(str(place)):
        assert new.exists()
        assert not old.exists()


@pytest.mark.parametrize("when", ["making", "leaving"])
def test_a_lack_of_descriptors_leaves_no_folder(place: Path, when: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []

    def use_up() -> None:
        spare.append(os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare[0] + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.open(os.devnull, os.O_RDONLY))

    try:
        if when == "leaving":
            with socket_folder(str(place)):
                use_up()
        else:
            use_up()
            with pytest.raises(TransportError, match="too many open files"):
                with socket_folder(str(place)):
                    pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in spare:
            os.close(descriptor)
    assert list(place.iterdir()) == []
