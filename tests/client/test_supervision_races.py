"""What a supervised client does when several things happen to it at once."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import ConfigError, PoolPolicy, RestartPolicy, RPCPluginError, plugin_client
from pyvider_rpcplugin.client._launch import Launch
from tests.client.test_supervision import SOON, pid_of, until
from tests.plugins import broken, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyvider_rpcplugin.client import RPCPluginClient

pytestmark = pytest.mark.process

LATER = RestartPolicy(initial_backoff=60, max_backoff=60)


def supervisor_of(client: RPCPluginClient) -> Any:
    return client._launch


def waits_given_up(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("pyvider_rpcplugin")]
    return [text for text in ours if "seconds" in text]


async def until_true(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - there is nothing that tells
        await anyio.sleep(0.01)


async def test_reloading_one_that_waits_for_its_restart_starts_it_now_and_once() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=LATER) as client, client.events() as events:
            os.kill(await pid_of(client), signal.SIGKILL)
            await until(events, "restarting")
            await client.reload()
            assert await pid_of(client) == client.pid
            assert len(supervisor_of(client)._places) == len(client.pids) == 1


async def test_reloading_one_that_dies_meanwhile_waits_for_the_new_one() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=LATER) as client:
            os.kill(await pid_of(client), signal.SIGKILL)
            await client.reload(echo("--loop", "trio"))
            assert (await client.stub(EchoStub).Unary(EchoRequest(text="loop"))).text == "trio"
            assert len(client.pids) == 1


async def test_reloading_twice_at_once_replaces_twice_and_both_return() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON) as client, client.events() as events:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.reload)
                tasks.start_soon(client.reload, echo("--loop", "trio"))
            assert (await client.stub(EchoStub).Unary(EchoRequest(text="loop"))).text == "trio"
            assert len(client.pids) == 1
            await client.stop()
            kinds = [event.kind async for event in events]
            assert kinds.count("started") == 2
            assert kinds.count("stopped") == 3


async def test_two_reloads_that_fail_both_say_so() -> None:
    failures: list[RPCPluginError] = []
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON, client_retry_enabled=False) as client:
            first = await pid_of(client)

            async def reload() -> None:
                with pytest.raises(RPCPluginError) as caught:
                    await client.reload(broken("exits"))
                failures.append(caught.value)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reload)
                tasks.start_soon(reload)
            assert await pid_of(client) == first
    assert len(failures) == 2


async def test_a_reload_that_is_cancelled_goes_on_and_the_next_one_works() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON) as client, client.events() as events:
            first = await pid_of(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.reload)
                await anyio.sleep(0.02)
                tasks.cancel_scope.cancel()
            second = (await until(events, "started")).pid
            await client.reload()
            assert await pid_of(client) not in {first, second}
            assert len(client.pids) == 1


async def test_a_reload_is_told_when_the_client_is_stopped() -> None:
    client = plugin_client(echo(), restart=SOON)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, client:

            async def reload() -> None:
                with pytest.raises(RPCPluginError, match="stopped"):
                    await client.reload()

            tasks.start_soon(reload)
            await until_true(lambda: supervisor_of(client)._starting)
            await client.stop()


async def test_after_a_reload_that_failed_the_old_command_is_started_again() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON, client_retry_enabled=False) as client:
            first = await pid_of(client)
            with pytest.raises(RPCPluginError):
                await client.reload(broken("exits"))
            not_one: Any = 3
            with pytest.raises(ConfigError):
                await client.reload(not_one)
            assert client.command == echo()
            os.kill(first, signal.SIGKILL)
            await until_true(lambda: client.pid not in {None, first})
            assert await pid_of(client) == client.pid


async def test_a_given_up_plugin_stays_so_when_it_cannot_be_reloaded() -> None:
    policy = RestartPolicy(initial_backoff=0.01, max_restarts=1)
    with anyio.fail_after(20):
        async with (
            plugin_client(echo(), restart=policy, client_retry_enabled=False) as client,
            client.events() as events,
        ):
            for _ in range(2):
                with pytest.raises(GRPCError):
                    await client.stub(EchoStub).Unary(EchoRequest(text="exit:3"))
            await until(events, "gave_up")
            with pytest.raises(RPCPluginError) as caught:
                await client.reload(broken("exits"))
            assert caught.value.exit_status == 3
            with pytest.raises(GRPCError, match="is given up: it exited with status 3"):
                await pid_of(client)
            await client.reload()
            assert await pid_of(client)


async def test_a_lazy_pool_starts_all_its_plugins_at_the_first_call() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), lazy=True, pool=PoolPolicy(size=2)) as client:
            await pid_of(client)
            await until_true(lambda: len(client.pids) == 2)


async def test_an_idle_pool_stops_all_its_plugins_and_the_next_call_starts_all() -> None:
    with anyio.fail_after(30):
        async with plugin_client(echo(), idle_timeout=0.1, pool=PoolPolicy(size=2)) as client:
            await pid_of(client)
            for _ in range(2):
                await until_true(lambda: not client.pids)
                async with client.stub(EchoStub).Bidi.open() as stream:
                    await stream.send_message(EchoRequest(text="x"))
                    await until_true(lambda: len(client.pids) == 2)
                    await stream.end()


async def test_a_reload_fills_the_places_that_were_given_up() -> None:
    policy = RestartPolicy(initial_backoff=0.01, max_restarts=1)
    with anyio.fail_after(30):
        async with (
            plugin_client(echo(), restart=policy, pool=PoolPolicy(size=2)) as client,
            client.events() as events,
        ):
            for _ in range(3):
                await until_true(lambda: len(client.pids) == 2)
                os.kill(client.pids[0], signal.SIGKILL)
                await until(events, "exited")
            await until(events, "gave_up")
            assert await pid_of(client)
            await client.reload()
            await until_true(lambda: len(client.pids) == 2)


async def test_a_pool_grows_by_no_more_than_its_calls_need() -> None:
    pool = PoolPolicy(size=1, max_size=4, shrink_after=60)
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=pool) as client:
            async with client.stub(EchoStub).Bidi.open() as one:
                await one.send_message(EchoRequest(text="x"))
                assert await one.recv_message() is not None
                for _ in range(20):  # one after the other: two plugins are enough
                    await pid_of(client)
                assert len(supervisor_of(client)._places) == 2
                await one.end()


async def test_a_pool_shrinks_though_others_of_its_plugins_are_called() -> None:
    pool = PoolPolicy(size=1, max_size=2, spares=1, shrink_after=0.1)
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=pool) as client, client.events() as events:
            async with client.stub(EchoStub).Bidi.open() as one:
                await one.send_message(EchoRequest(text="x"))
                assert await one.recv_message() is not None
                await pid_of(client)
                await until_true(lambda: len(client.pids) == 2)
                await one.end()
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    while True:
                        await pid_of(client)
                        await anyio.sleep(0.01)

                tasks.start_soon(call)
                assert (await until(events, "stopped")).reason == "it was idle"
                tasks.cancel_scope.cancel()
            assert len(client.pids) == 1
            assert len(supervisor_of(client)._spares) == 1


async def test_a_worn_plugin_whose_successors_do_not_start_is_kept_and_not_hurried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = PoolPolicy(size=1, max_age=0.01, check_interval=0.01)
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=pool, client_retry_enabled=False) as client:
            supervisor = supervisor_of(client)
            client.command = ["/no/such/plugin"]
            supervisor.new_launch = client._launcher()
            [place] = supervisor._places
            await until_true(lambda: place.member and place.member.refused >= 3)
            assert place.member.refused < 12
            assert await pid_of(client) == client.pid


async def test_what_else_a_start_may_fail_with_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Launch._run
    failures = 2

    async def run(self: Launch, session: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        await whole(self, session)

    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON, lazy=True) as client:
            monkeypatch.setattr(Launch, "_run", run)
            async with client.events() as events:
                assert await pid_of(client)
                restarting = await until(events, "restarting")
                assert "Too many open files" in restarting.reason
    assert failures == 0


async def test_an_unhealthy_plugin_that_is_given_up_is_called_that() -> None:
    policy = RestartPolicy(
        max_restarts=1, initial_backoff=0.01, health_interval=0.02, health_timeout=0.1,
        health_failures=1,
    )  # fmt: skip
    with anyio.fail_after(30):
        async with (
            plugin_client(echo(), restart=policy, grpc_grace_period=0.1) as client,
            client.events() as events,
        ):
            for _ in range(2):
                pid = (await until(events, "started")).pid if client.pid is None else client.pid
                assert pid is not None
                os.kill(pid, signal.SIGSTOP)
                await until(events, "unhealthy")
                await until_true(lambda pid=pid: client.pid != pid)  # type: ignore[misc]
            gave_up = await until(events, "gave_up")
            assert gave_up.reason == "was not healthy: no answer within 0.1 s"


async def test_while_a_restarted_plugin_runs_there_is_no_exit() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON) as client, client.events() as events:
            os.kill(await pid_of(client), signal.SIGKILL)
            await until(events, "exited")
            assert client.exit is not None
            await pid_of(client)
            assert client.exit is None
        assert client.exit is not None
        assert client.exit.status == 0


@pytest.mark.parametrize("policy", [None, RestartPolicy(initial_backoff=0.01)])
async def test_who_is_told_of_a_plugins_end_may_stop_the_client(
    policy: RestartPolicy | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def stop(_: object) -> None:
        await client.stop()

    client = plugin_client(echo(), restart=policy, on_exit=stop)
    with anyio.fail_after(12):
        async with client:
            with pytest.raises(GRPCError):
                await client.stub(EchoStub).Unary(EchoRequest(text="exit:3"))
            await client.exited.wait()
    assert not waits_given_up(caplog)


@pytest.mark.parametrize("supervised", [False, True])
async def test_who_is_told_may_stop_the_client(
    supervised: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def stop(event: object) -> None:
        if getattr(event, "kind", "gave_up") == "gave_up":
            await client.stop()

    if supervised:
        policy = RestartPolicy(initial_backoff=0.01, max_restarts=1)
        client = plugin_client(echo(), restart=policy, on_event=stop)
    else:
        client = plugin_client(echo(), on_exit=stop)
    with anyio.fail_after(10):
        async with client:
            for _ in range(2 if supervised else 1):
                with pytest.raises(GRPCError):
                    await client.stub(EchoStub).Unary(EchoRequest(text="exit:3"))
            await client.exited.wait()
    assert not waits_given_up(caplog)
