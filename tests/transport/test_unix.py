"""Unix sockets in the file system: what is made there, replaced, refused and removed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import sys
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport import UnixSocketTransport
from pyvider_rpcplugin.transport._path import LONGEST_PATH

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets"),
]


@pytest.fixture
def folder(monkeypatch) -> Path:
    """A folder with a short path, which is the test's own TMPDIR."""
    return Path(os.environ["TMPDIR"])


def leave_stale_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


async def refused(transport) -> TransportError:
    with pytest.raises(TransportError) as caught:
        async with transport.listen():
            pytest.fail("it listens")
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


async def test_without_a_path_the_socket_lies_in_a_private_folder_and_both_vanish(folder):
    async with UnixSocketTransport().listen() as listener:
        path = Path(listener.address)
        assert path.parent.parent == folder
        assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    assert list(folder.iterdir()) == []


async def test_what_a_killed_process_left_is_removed_by_the_next_one(folder):
    program = (
        "import anyio, os\n"
        "from pyvider_rpcplugin.transport import UnixSocketTransport\n"
        "async def main():\n"
        "    async with UnixSocketTransport().listen():\n"
        "        os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    async with UnixSocketTransport().listen() as mine:
        await anyio.run_process([sys.executable, "-c", program], check=False)
        left = set(folder.iterdir()) - {Path(mine.address).parent}
        assert len(left) == 1
        async with UnixSocketTransport().listen() as other:
            # What is in use stays.
            parents = {Path(listener.address).parent for listener in (mine, other)}
            assert set(folder.iterdir()) == parents
    assert list(folder.iterdir()) == []


async def test_two_transports_without_a_path_do_not_meet(folder):
    async with UnixSocketTransport().listen() as one, UnixSocketTransport().listen() as two:
        assert one.address != two.address
    assert list(folder.iterdir()) == []


async def test_a_temporary_folder_that_is_too_deep_is_passed_over(folder, monkeypatch):
    deep = folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    async with UnixSocketTransport().listen() as listener:
        path = Path(listener.address)
        assert not path.is_relative_to(deep)
        assert mode(path.parent) == 0o700
        async with UnixSocketTransport(path).connect():
            pass
    assert not path.parent.exists()
    deep.rmdir()


async def test_a_temporary_folder_that_is_missing_is_passed_over(folder, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(folder / "missing"))
    async with UnixSocketTransport().listen() as listener:
        assert not Path(listener.address).is_relative_to(folder)


async def test_a_folder_of_the_caller_s_holds_the_socket_and_stays(folder):
    async with UnixSocketTransport(folder=folder).listen() as listener:
        assert Path(listener.address).parent == folder
        assert mode(listener.address) == 0o600
    assert list(folder.iterdir()) == []
    assert folder.exists()


async def test_a_path_of_the_caller_s_is_used_as_it_is(folder):
    path = folder / "service.sock"
    async with UnixSocketTransport(path=path).listen() as listener:
        assert listener.address == str(path)
        assert mode(path) == 0o600
    assert not path.exists()


async def test_a_relative_path_works(folder, monkeypatch):
    monkeypatch.chdir(folder)
    async with UnixSocketTransport("x.sock").listen() as listener:
        assert listener.address == "x.sock"
        async with UnixSocketTransport(folder / "x.sock").connect():
            pass


async def test_the_umask_is_neither_used_nor_changed(folder):
    before = os.umask(0)
    try:
        async with UnixSocketTransport().listen() as listener:
            path = Path(listener.address)
            assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    finally:
        assert os.umask(before) == 0


async def test_a_group_may_connect_when_asked_for(folder):
    for transport in (
        UnixSocketTransport(folder / "g.sock", group=os.getgid()),
        UnixSocketTransport(folder / "g.sock", group=str(os.getgid())),
    ):
        async with transport.listen() as listener:
            assert mode(listener.address) == 0o660
            assert os.stat(listener.address).st_gid == os.getgid()
    async with UnixSocketTransport(group=os.getgid()).listen() as listener:
        assert mode(Path(listener.address).parent) == 0o710


async def test_a_group_that_does_not_exist_is_an_error(folder):
    error = await refused(UnixSocketTransport(group="no-such-group"))
    assert "no-such-group" in error.message


async def test_a_socket_that_nobody_listens_on_is_replaced(folder):
    path = folder / "stale.sock"
    leave_stale_socket(path)
    async with UnixSocketTransport(path).listen():
        async with UnixSocketTransport(path).connect():
            pass
    assert not path.exists()


async def test_a_socket_that_somebody_listens_on_is_an_error_and_goes_on(folder):
    path = folder / "live.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        assert "another process listens" in (await refused(UnixSocketTransport(path))).message
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    path.unlink()


async def test_a_live_socket_with_a_full_queue_is_alive(folder):
    path = folder / "busy.sock"
    clients = []
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        try:
            while True:
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.setblocking(False)
                if client.connect_ex(str(path)):
                    break
            assert "another process listens" in (await refused(UnixSocketTransport(path))).message
        finally:
            for client in clients:
                client.close()
    path.unlink()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_what_is_no_socket_is_left_alone(folder, kind):
    path = folder / "precious"
    if kind == "file":
        path.write_text("data")
    elif kind == "folder":
        path.mkdir()
    else:
        leave_stale_socket(folder / "target.sock")
        path.symlink_to(folder / "target.sock")
    assert "not a socket" in (await refused(UnixSocketTransport(path))).message
    if kind == "file":
        assert path.read_text() == "data"
        path.unlink()
    elif kind == "folder":
        path.rmdir()
    else:
        assert path.is_symlink()
        path.unlink()
        (folder / "target.sock").unlink()


async def test_what_took_the_socket_s_place_is_left_alone(folder):
    path = folder / "x.sock"
    async with UnixSocketTransport(path).listen():
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"
    path.unlink()


async def test_a_socket_that_was_removed_by_others_is_no_trouble(folder, caplog):
    async with UnixSocketTransport().listen() as listener:
        os.unlink(listener.address)
        shutil.rmtree(os.path.dirname(listener.address))
    assert caplog.records == []


async def test_a_folder_that_is_not_empty_is_left_with_a_warning(folder, caplog):
    async with UnixSocketTransport().listen() as listener:
        other = Path(listener.address).with_name("other")
        other.write_text("not ours")
    assert "transport.unix.left" in caplog.text
    assert other.read_text() == "not ours"
    other.unlink()
    other.parent.rmdir()


@pytest.mark.parametrize("length", [LONGEST_PATH, LONGEST_PATH + 1])
async def test_a_path_may_be_as_long_as_the_system_takes_and_says_so_beyond(folder, length):
    path = str(folder / "é")
    path += "x" * (length - len(os.fsencode(path)))
    if length <= LONGEST_PATH:
        async with UnixSocketTransport(path).listen(), UnixSocketTransport(path).connect():
            pass
    else:
        error = await refused(UnixSocketTransport(path))
        assert "too long" in error.message
        assert str(LONGEST_PATH) in str(error.hint)
        with pytest.raises(TransportError, match="too long"):
            await UnixSocketTransport(path).connect()


async def test_a_folder_whose_path_is_too_long_says_so(folder):
    assert "too long" in (await refused(UnixSocketTransport(folder=folder / ("d" * 100)))).message


@pytest.mark.parametrize("path", ["", "a\0b"])
async def test_a_path_that_is_none_is_an_error(path):
    await refused(UnixSocketTransport(path))


async def test_a_missing_folder_is_an_error(folder):
    assert "create it" in str(await refused(UnixSocketTransport(folder / "no" / "x.sock")))
    assert "create it" in str(await refused(UnixSocketTransport(folder=folder / "no")))


async def test_connecting_to_no_socket_says_why(folder):
    stale, missing, file = folder / "stale", folder / "missing", folder / "file"
    leave_stale_socket(stale)
    file.write_text("")
    for path in (stale, missing, file):
        with pytest.raises(TransportError, match="cannot connect") as caught:
            await UnixSocketTransport(path).connect()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.hint
    with pytest.raises(TransportError, match="without a path"):
        await UnixSocketTransport().connect()
    stale.unlink()
    file.unlink()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others refuse at once")
async def test_a_full_queue_is_waited_for(folder):
    path = folder / "busy.sock"
    streams = []
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        other.setblocking(False)
        connected = anyio.Event()

        async def connect() -> None:
            streams.append(await UnixSocketTransport(path).connect())
            if len(streams) == 3:
                connected.set()

        async with anyio.create_task_group() as task_group:
            for _ in range(3):
                task_group.start_soon(connect)
            with anyio.fail_after(5):
                while not connected.is_set():
                    await anyio.wait_readable(other)
                    other.accept()[0].close()
        for stream in streams:
            await stream.aclose()
    path.unlink()


# The listener's patience


async def test_a_shortage_of_descriptors_is_waited_out(folder, monkeypatch, caplog):
    async with UnixSocketTransport().listen() as listener:
        socket_ = ScarceSocket(listener._socket, [errno.EMFILE, errno.ECONNABORTED])
        monkeypatch.setattr(listener, "_socket", socket_)
        with anyio.fail_after(5):
            async with UnixSocketTransport(listener.address).connect() as stream:
                async with await listener.accept() as accepted:
                    await stream.send(b"x")
                    assert await accepted.receive() == b"x"
    assert "transport.accept.exhausted" in caplog.text


async def test_an_accept_that_can_never_work_again_is_an_error(folder, monkeypatch):
    async with UnixSocketTransport().listen() as listener:
        monkeypatch.setattr(listener, "_socket", ScarceSocket(listener._socket, [errno.EINVAL]))
        with pytest.raises(anyio.BrokenResourceError):
            await listener.accept()


class ScarceSocket:
    """A listening socket whose first accepts fail as the system's would."""

    def __init__(self, sock: socket.socket, failures: list[int]) -> None:
        self._sock = sock
        self._failures = failures

    def __getattr__(self, name: str):
        return getattr(self._sock, name)

    def accept(self):
        if self._failures:
            code = self._failures.pop(0)
            raise OSError(code, os.strerror(code))
        return self._sock.accept()
