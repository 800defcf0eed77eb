"""Plugins that are left running, and attached to again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    PluginExit,
    PluginHost,
    ReattachConfig,
    RPCPluginError,
    SecurityError,
    TransportError,
    plugin_client,
)
from pyvider_rpcplugin.client._folder import remove_dead_socket
from tests.broker.test_pairs import Callback, ask
from tests.plugins import FOLDER, echo, misc_plugin, talking
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

LOOPS = ["asyncio", "trio"]


@contextmanager
def left_running(pid: int | None) -> Iterator[None]:
    """End what a test has left running if it fails."""
    assert pid is not None
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise


async def reap(pid: int | None) -> None:
    """Do what some later start in this process would: take the status of a child that was left."""
    from pyvider_rpcplugin.process._posix import reap_released

    while there_is(pid):
        reap_released()
        await anyio.sleep(0.01)


def there_is(pid: int | None) -> bool:
    return os.path.exists(f"/proc/{pid}")


def session_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[3])


def started(*command: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)


async def pid_of(client: Any) -> int:
    return int((await client.stub(EchoStub).Unary(EchoRequest(text="pid"))).text)


@pytest.mark.parametrize("mtls", [False, True], ids=["plain", "mtls"])
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_plugin_is_left_and_found_again_by_its_json(loop: str, mtls: bool) -> None:
    ends: list[PluginExit] = []
    with anyio.fail_after(10):
        options: dict[str, Any] = {"auto_mtls": mtls, "outlive_host": True}
        async with plugin_client(echo("--loop", loop), on_exit=ends.append, **options) as client:
            pid = await pid_of(client)
            with left_running(pid):
                record = await client.detach()
            assert client.grpc_channel is None
            assert not client.exited.is_set()
            with pytest.raises(RPCPluginError, match="left running"):
                await plugin_client(echo()).wait()
        assert ends == []
        with left_running(pid):
            assert (record.pid, record.protocol_version, record.test) == (pid, 1, False)
            assert (record.client_key is not None) is mtls
            again = plugin_client(reattach=record.to_json(), auto_mtls=mtls, on_exit=ends.append)
            async with again:
                assert await pid_of(again) == again.pid == pid
                assert again.negotiated_version == 1
                await again.ping()
                assert again.reattach_config() == record
        assert again.exited.is_set()
        # It was a child of this process.
        assert [one.status for one in ends] == [0]


async def test_two_hosts_in_turn_leave_a_plugin_running() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), outlive_host=True) as first:
            with left_running(first.pid):
                record = await first.detach()
        with left_running(record.pid):
            async with plugin_client(reattach=record) as second:
                assert await second.detach() == record
            async with plugin_client(reattach=record.to_dict()) as third:
                await third.ping()


async def test_broker_and_output_work_over_a_connection_made_again() -> None:
    printed: list[bytes] = []
    brokered = [sys.executable, str(FOLDER / "broker_plugin.py")]
    with anyio.fail_after(15):
        async with plugin_client(brokered, outlive_host=True) as client:
            async with client.broker.serve(Callback()) as number:
                assert await ask(client, "call-back", number) == "host heard from the plugin"
            with left_running(client.pid):
                record = await client.detach()
        with left_running(record.pid):
            async with plugin_client(reattach=record) as client:
                async with client.broker.serve(Callback("another host")) as number:
                    answer = await ask(client, "call-back", number)
                assert answer == "another host heard from the plugin"
        async with plugin_client(talking("asyncio"), outlive_host=True) as client:
            with left_running(client.pid):
                record = await client.detach()
        with left_running(record.pid):
            async with plugin_client(reattach=record, sync_stdout=printed.append) as client:
                await misc_plugin.ask(client.grpc_channel, "say hello again")
            assert client.exit == PluginExit(0)
    assert b"".join(printed) == b"hello again\n"


async def test_the_death_of_a_plugin_that_was_attached_to_is_noticed() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), outlive_host=True) as client:
            with left_running(client.pid):
                record = await client.detach()
        with left_running(record.pid):
            async with plugin_client(reattach=record) as client:
                os.kill(record.pid, signal.SIGKILL)
                assert (await client.wait()).status == -9


async def test_a_plugin_that_does_not_listen_to_reason_is_ended_by_signals() -> None:
    with anyio.fail_after(15):
        async with plugin_client(echo(), outlive_host=True) as client:
            with left_running(client.pid):
                record = await client.detach()
        with left_running(record.pid):
            options: dict[str, Any] = {"grpc_grace_period": 0.1}
            async with plugin_client(reattach=record, **options) as client:
                os.kill(record.pid, signal.SIGSTOP)
        assert client.exit is not None
        assert client.exit.status == -9


async def test_what_somebody_else_runs_is_left_running() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as owner:
            values = owner.reattach_config().to_dict() | {"Test": True}
            async with plugin_client(reattach=values) as guest:
                assert await pid_of(guest) == owner.pid
            assert not guest.exited.is_set()
            assert guest.exit is None
            await owner.ping()
            async with PluginHost() as host:
                await host.start(reattach=values)
            await owner.ping()
            async with plugin_client(reattach=values) as guest:
                await owner.stop()
                assert (await guest.wait()).status is None
                assert guest.exited.is_set()


async def test_a_record_without_a_process_number_is_enough_to_call_and_to_end_a_plugin() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), outlive_host=True) as client:
            pid = client.pid
            with left_running(pid):
                record = await client.detach()
        with left_running(pid):
            values = record.to_dict() | {"Pid": 0, "ProtocolVersion": 0}
            async with plugin_client(reattach=values, grpc_grace_period=0.1) as client:
                assert client.pid is None
                await client.ping()
            await reap(pid)


async def test_a_plugin_that_ends_with_its_host_cannot_be_left() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            with pytest.raises(RPCPluginError, match="would end with its host"):
                await client.detach()
            await client.ping()
        with pytest.raises(RPCPluginError, match="not running"):
            client.reattach_config()


async def test_a_plugin_with_one_connection_for_all_has_no_record() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), multiplex_grpc=True) as client:
            with pytest.raises(RPCPluginError, match="one connection"):
                client.reattach_config()


async def test_a_stale_record_is_an_error_and_ends_nobody() -> None:
    with anyio.fail_after(15):
        async with plugin_client(echo()) as client:
            record = client.reattach_config()
        with pytest.raises(TransportError, match=f"no process {record.pid}"):
            await plugin_client(reattach=record).start()
        with started("sleep", "60") as other:
            try:
                reused = record.to_dict() | {"Pid": other.pid}
                with pytest.raises(TransportError, match="another process"):
                    await plugin_client(reattach=reused).start()
                del reused["Started"]
                # Now only the address tells: nobody listens there.
                failed = plugin_client(reattach=reused)
                with pytest.raises(TransportError) as caught:
                    await failed.start()
                assert caught.value.phase == "connect"
                assert failed.exited.is_set()
                assert other.poll() is None
            finally:
                other.kill()


@pytest.mark.parametrize(
    ("changes", "expected", "options"),
    [
        ({"ProtocolVersion": 7}, HandshakeError, {}),
        ({}, HandshakeError, {"client_transports": "tcp"}),
        ({"ServerCert": "nonsense"}, SecurityError, {}),
        ({"ServerCert": None}, ConfigError, {}),
        ({"Protocol": "netrpc"}, ConfigError, {}),
        ({}, ConfigError, {"multiplex_grpc": True}),
        ({}, ConfigError, {"env": {}}),
        ({}, ConfigError, {"debug": "wait"}),
    ],
)
async def test_a_record_that_does_not_fit_is_refused(
    changes: dict[str, Any], expected: type[RPCPluginError], options: dict[str, Any]
) -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            values = client.reattach_config().to_dict() | changes
            refused = plugin_client(reattach=values, **options)
            with pytest.raises(expected):
                await refused.start()
            await client.ping()


async def test_what_is_no_record_at_all_is_said_at_the_start() -> None:
    something: Any = 7
    for wrong in ("{", something):
        with pytest.raises(ConfigError):
            await plugin_client(reattach=wrong).start()


async def test_a_plain_record_is_refused_where_tls_is_required() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), auto_mtls=False) as client:
            record = client.reattach_config()
            with pytest.raises(SecurityError, match="has no certificate"):
                await plugin_client(reattach=record, auto_mtls="required").start()


async def test_another_host_without_the_key_does_not_get_in() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo()) as client:
            values = client.reattach_config().to_dict()
            del values["ClientCert"], values["ClientKey"]
            with pytest.raises(RPCPluginError):
                async with plugin_client(reattach=values) as guest:
                    await guest.ping()
            await client.ping()


async def test_an_attaching_runner_translates_and_ends() -> None:
    asked: list[str] = []

    class Attached:
        def __init__(self, record: ReattachConfig) -> None:
            self.id = "container-7"
            self.pid = None
            self._record = record
            self._ended = anyio.Event()

        async def wait(self) -> int | None:
            await self._ended.wait()
            return 5

        async def terminate(self) -> None:
            asked.append("terminate")
            os.kill(self._record.pid, signal.SIGKILL)
            self._ended.set()

        async def kill(self) -> None:
            asked.append("kill")

        def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
            return network, address.removeprefix("/container")

        def host_to_plugin(self, network: str, address: str) -> tuple[str, str]:
            return network, address

    @asynccontextmanager
    async def attach(record: ReattachConfig):
        yield Attached(record)

    with anyio.fail_after(10):
        async with plugin_client(echo(), outlive_host=True) as client:
            with left_running(client.pid):
                record = await client.detach()
        with left_running(record.pid):
            values = record.to_dict()
            values["Addr"]["String"] = "/container" + values["Addr"]["String"]
            options: dict[str, Any] = {"grpc_grace_period": 0.1, "runner": attach}
            async with plugin_client(reattach=values, **options) as client:
                assert (client.id, client.pid) == ("container-7", None)
                os.kill(record.pid, signal.SIGSTOP)
        assert client.exit == PluginExit(5)
        assert asked == ["terminate"]
        await reap(record.pid)
        remove_dead_socket(record.address)


HOST = """
import sys
import anyio
from pyvider_rpcplugin import plugin_client

async def main():
    async with plugin_client(sys.argv[1:], outlive_host=True) as client:
        print(client.reattach_config().to_json(), flush=True)
        sys.stdin.read()

anyio.run(main)
"""


@pytest.mark.parametrize("loop", LOOPS)
async def test_a_plugin_outlives_a_host_that_was_killed(loop: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    printed: list[bytes] = []
    with anyio.fail_after(15):
        with started(sys.executable, "-c", HOST, *talking(loop)) as host:
            assert host.stdout is not None
            record = ReattachConfig.from_json(await anyio.to_thread.run_sync(host.stdout.readline))
            host.kill()
        with left_running(record.pid):
            assert session_of(record.pid) == record.pid
            async with plugin_client(reattach=record, sync_stdout=printed.append) as client:
                # It goes on writing where its first host has listened, and so do its children.
                for _ in range(50):
                    await misc_plugin.ask(client.grpc_channel, "crash-text nobody hears this")
                await misc_plugin.ask(client.grpc_channel, "many-ways")
                await misc_plugin.ask(client.grpc_channel, "log 30 it lives on")
                await client.ping()
            assert client.exited.is_set()
        await reap(record.pid)
    [record_of_log] = [one for one in caplog.records if one.getMessage() == "it lives on"]
    assert record_of_log.levelno == logging.WARNING
    assert record_of_log.name == f"pyvider_rpcplugin.plugin.attached-{record.pid}"
    assert "nobody hears this" not in caplog.text
    assert b"".join(printed).split() == [b"one", b"two", b"three", b"four", b"five"]
