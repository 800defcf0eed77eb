"""The private socket by which a host shows what its plugins do."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from pyvider_rpcplugin import PluginHost, TransportError, plugin_client
from pyvider_rpcplugin.admin import admin_socket, find_hosts, percentile, report_of
from pyvider_rpcplugin.testing import connected
from tests.plugins import echo
from tests.plugins.counter_plugin import Counter

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


async def test_it_shows_what_the_clients_have_done(runtime: Path) -> None:
    with anyio.fail_after(5):
        async with connected(Counter()) as client, admin_socket(client) as shown:
            assert os.path.dirname(os.path.dirname(shown.path)) == str(runtime)
            assert stat.S_IMODE(os.stat(os.path.dirname(shown.path)).st_mode) == 0o700
            assert stat.S_IMODE(os.stat(shown.path).st_mode) == 0o600
            assert find_hosts() == {os.getpid(): shown.path}
            await client.proxy(Counter).add(1)
            async with report_of(shown.path) as host:
                report = await host.report()
                assert report.pid == os.getpid()
                [seen] = report.clients
                assert seen.statistics.calls_succeeded == 1
                assert seen.memory == (None,)
                assert sum(seen.latency) == 1
                assert 0 < (percentile(seen.latency, 0.5) or 0) < 5
                await client.proxy(Counter).add(2)
                assert sum((await host.report()).clients[0].latency) == 2
        assert find_hosts() == {}
        assert not os.listdir(os.path.dirname(shown.path))


async def test_a_host_may_have_arguments_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python", os.fsdecode(b"\xff.py")])
    with anyio.fail_after(5):
        async with admin_socket() as shown, report_of(shown.path) as host:
            assert (await host.report()).command == ("python", "\\udcff.py")


async def test_afterwards_calls_are_timed_no_longer() -> None:
    with anyio.fail_after(5):
        async with connected(Counter()) as client:
            async with admin_socket(client):
                assert client.grpc_channel is not None
                assert len(client.grpc_channel.interceptors) == 1
            assert len(client.grpc_channel.interceptors) == 0


@pytest.mark.process
async def test_it_shows_the_clients_that_a_host_starts_and_their_memory() -> None:
    with anyio.fail_after(10):
        async with PluginHost() as host, admin_socket(host) as shown:
            assert shown.report().clients == ()
            first = await host.start(echo())
            second = await host.start(plugin_client(echo()))
            one, other = shown.report().clients
            assert (one.number, other.number) == (1, 2)
            assert [one.statistics.pid, other.statistics.pid] == [first.pid, second.pid]
            assert (one.memory[0] or 0) > 1_000_000
            await first.stop()
            assert [left.number for left in shown.report().clients] == [2]


async def test_clients_can_be_added() -> None:
    with anyio.fail_after(5):
        async with admin_socket() as shown, connected(Counter()) as client:
            shown.watch(client)
            await client.proxy(Counter).add(1)
            assert sum(shown.report().clients[0].latency) == 1


async def test_a_host_has_one_socket_in_that_place() -> None:
    with anyio.fail_after(5):
        async with admin_socket() as shown:
            with pytest.raises(TransportError, match="another process listens there"):
                async with admin_socket():
                    pass
            async with admin_socket(path=f"{shown.path}.2"):
                pass


async def test_a_folder_that_others_may_enter_is_not_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runtime / f"pyvider-rpcplugin-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setattr("pyvider_rpcplugin.admin.temporary_folders", list)
    with pytest.raises(TransportError, match="not a folder of this user's alone"):
        async with admin_socket():
            pass
    assert find_hosts() == {}


async def test_sockets_of_hosts_that_were_killed_are_removed(runtime: Path) -> None:
    folder = runtime / f"pyvider-rpcplugin-{os.getuid()}"
    folder.mkdir(0o700)
    left = folder / "4194999.sock"  # More than there are process numbers.
    left.touch()
    assert find_hosts() == {}
    with anyio.fail_after(5):
        async with admin_socket():
            assert not left.exists()


async def test_nobody_listens_where_there_is_no_host(runtime: Path) -> None:
    with pytest.raises(TransportError, match="cannot connect"):
        async with report_of(runtime / "1.sock"):
            pass


def test_percentiles_lie_within_their_buckets() -> None:
    assert percentile((), 0.5) is None
    assert percentile((0, 0), 0.5) is None
    assert percentile((10,), 0.5) == pytest.approx(2.5e-5)
    assert percentile((1, 0, 0, 99), 0.5) == pytest.approx(1.206e-4, rel=0.01)
    assert percentile((0,) * 42 + (1,), 0.5) == pytest.approx(74.2, rel=0.01)
