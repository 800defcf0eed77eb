"""Plugins that are kept running: restarted, started by calls, stopped when idle, replaced."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import ConfigError, RPCPluginError, plugin_client
from pyvider_rpcplugin.client.supervision import PluginEvent, PoolPolicy, RestartPolicy
from pyvider_rpcplugin.rpc import ConnectionLost
from tests.plugins import broken, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pyvider_rpcplugin.client import RPCPluginClient
    from pyvider_rpcplugin.client._events import PluginEvents

pytestmark = pytest.mark.process

SOON = RestartPolicy(initial_backoff=0.01, max_backoff=0.01, max_restarts=20)


async def pid_of(client: RPCPluginClient, **options: Any) -> int:
    return int((await client.stub(EchoStub).Unary(EchoRequest(text="pid"), **options)).text)


async def until(events: PluginEvents, kind: str) -> PluginEvent:
    async for event in events:
        if event.kind == kind:
            return event
    pytest.fail(f"no event {kind!r}")


# --- restarts ----------------------------------------------------------------------------------


async def test_a_plugin_that_was_killed_is_started_again_and_stubs_stay_good() -> None:
    client = plugin_client(echo(), restart=SOON)
    stub = client.stub(EchoStub)
    with anyio.fail_after(10):
        async with client, client.events() as events:
            first = await pid_of(client)
            assert client.pid == first
            os.kill(first, signal.SIGKILL)
            exited = await until(events, "exited")
            assert (exited.pid, exited.exit and exited.exit.status) == (first, -signal.SIGKILL)
            restarting = await until(events, "restarting")
            assert restarting.reason == "was killed by SIGKILL"
            assert restarting.delay is not None
            second = int((await stub.Unary(EchoRequest(text="pid"))).text)
            assert second != first
            assert (await until(events, "started")).pid == second
            assert not client.exited.is_set()
        assert client.exited.is_set()


async def test_calls_wait_for_the_restart_within_their_deadlines() -> None:
    slow = RestartPolicy(initial_backoff=0.2, jitter=0)
    with anyio.fail_after(10):
        async with plugin_client(echo(), restart=slow) as client, client.events() as events:
            os.kill(await pid_of(client), signal.SIGKILL)
            await until(events, "restarting")
            with pytest.raises(GRPCError) as caught:
                await pid_of(client, timeout=0.01)
            assert caught.value.status is Status.DEADLINE_EXCEEDED
            assert await pid_of(client, timeout=5)


async def test_by_another_policy_they_fail_at_once_and_say_why() -> None:
    policy = RestartPolicy(initial_backoff=0.5, jitter=0, calls="fail")
    with anyio.fail_after(10):
        async with plugin_client(echo(), restart=policy) as client, client.events() as events:
            os.kill(await pid_of(client), signal.SIGKILL)
            await until(events, "restarting")
            with pytest.raises(
                ConnectionLost, match="SIGKILL; it is being started again"
            ) as caught:
                await pid_of(client)
            assert caught.value.exit_status == -signal.SIGKILL
            await until(events, "started")
            assert await pid_of(client)


async def test_a_call_that_had_begun_fails_and_is_not_repeated(tmp_path: Path) -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), restart=SOON) as client:
            stub = client.stub(EchoStub)
            with pytest.raises(ConnectionLost) as caught:
                await stub.Unary(EchoRequest(text="kill"))
            assert caught.value.exit_status == -signal.SIGKILL
            assert (await stub.Unary(EchoRequest(text="seen"))).text == "seen"


async def test_a_plugin_that_ends_too_often_is_given_up_until_it_is_reloaded() -> None:
    policy = RestartPolicy(initial_backoff=0.01, max_restarts=1)
    with anyio.fail_after(10):
        async with plugin_client(echo(), restart=policy) as client, client.events() as events:
            for _ in range(2):
                with pytest.raises(ConnectionLost):
                    await client.stub(EchoStub).Unary(EchoRequest(text="exit:3"))
            gave_up = await until(events, "gave_up")
            assert gave_up.exit is not None
            assert gave_up.exit.status == 3
            with pytest.raises(ConnectionLost, match="is given up: it exited with status 3"):
                await pid_of(client)
            await client.reload()
            assert await pid_of(client) == client.pid


async def test_a_plugin_that_cannot_even_start_is_an_error_of_the_start() -> None:
    client = plugin_client(broken("exits"), restart=SOON, client_retry_enabled=False)
    with anyio.fail_after(10), pytest.raises(RPCPluginError) as caught:
        await client.start()
    assert caught.value.exit_status == 3
    assert client.grpc_channel is None


async def test_one_that_is_not_healthy_is_replaced() -> None:
    policy = RestartPolicy(
        initial_backoff=0.01, health_interval=0.02, health_timeout=0.2, health_failures=2
    )
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=policy) as client, client.events() as events:
            first = await pid_of(client)
            os.kill(first, signal.SIGSTOP)
            unhealthy = await until(events, "unhealthy")
            assert (unhealthy.pid, unhealthy.reason) == (first, "no answer within 0.2 s")
            assert await pid_of(client) != first


async def test_a_function_is_told_what_happens_and_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []

    async def on_event(event: PluginEvent) -> None:
        seen.append(event.kind)
        msg = "no matter"
        raise ValueError(msg)

    with anyio.fail_after(10):
        async with plugin_client(echo(), restart=SOON, on_event=on_event) as client:
            with pytest.raises(ConnectionLost):
                await client.stub(EchoStub).Unary(EchoRequest(text="exit:3"))
            assert await pid_of(client)
    assert seen == ["started", "exited", "restarting", "started", "stopped"]
    assert "on_event failed for started" in caplog.text


async def test_events_end_with_the_client() -> None:
    client = plugin_client(echo(), restart=SOON)
    events = client.events()
    with anyio.fail_after(10):
        async with client:
            pass
        assert [event.kind async for event in events] == ["started", "stopped"]


async def test_two_tasks_may_read_the_same_events() -> None:
    client = plugin_client(echo(), restart=SOON)
    events = client.events()
    kinds: list[str] = []

    async def read() -> None:
        kinds.extend([event.kind async for event in events])

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            async with client:
                pass
    assert sorted(kinds) == ["started", "stopped"]


async def test_only_what_is_kept_running_has_events_and_can_be_reloaded() -> None:
    client = plugin_client(echo())
    with pytest.raises(ConfigError, match="restart="):
        client.events()
    with anyio.fail_after(10):
        async with client:
            with pytest.raises(ConfigError, match="restart="):
                await client.reload()


@pytest.mark.parametrize(
    "options", [{"restart": True}, {"pool": 3}, {"idle_timeout": 0}, {"idle_timeout": -1}]
)
async def test_what_is_of_the_wrong_kind_is_refused_at_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        await plugin_client(echo(), **options).start()


async def test_only_plugins_that_are_started_here_are_kept_running() -> None:
    client = plugin_client(address="127.0.0.1:1", restart=SOON)
    with pytest.raises(ConfigError, match="started here"):
        await client.start()


async def test_what_is_kept_running_is_not_handed_over() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), restart=SOON, outlive_host=True) as client:
            with pytest.raises(RPCPluginError, match="not handed over"):
                await client.detach()


@pytest.mark.parametrize("restart", [None, SOON])
async def test_calls_without_a_deadline_get_the_clients(restart: RestartPolicy | None) -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), default_deadline=0.05, restart=restart) as client:
            with pytest.raises(GRPCError) as caught:
                await client.stub(EchoStub).Unary(EchoRequest(text="hang"))
            assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_a_default_deadline_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="default_deadline"):
        await plugin_client(echo(), default_deadline=0).start()


# --- started by calls, stopped when idle -----------------------------------------------------------


async def test_a_lazy_plugin_is_started_by_the_first_calls() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), lazy=True) as client:
            assert client.pid is None
            pids: list[int] = []

            async def call() -> None:
                pids.append(await pid_of(client))

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(call)
            assert set(pids) == {client.pid}


async def test_a_lazy_plugin_that_cannot_start_fails_the_calls_and_is_tried_again(
    tmp_path: Path,
) -> None:
    program = tmp_path / "plugin"
    with anyio.fail_after(10):
        async with plugin_client(
            [str(program), *echo()[1:]], lazy=True, client_retry_enabled=False
        ) as client:
            with pytest.raises(ConnectionLost, match=r"could not be started: .*no such file"):
                await pid_of(client)
            program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            program.chmod(0o755)
            assert await pid_of(client) == client.pid


async def test_a_lazy_plugin_that_has_died_is_started_by_the_next_call() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), lazy=True) as client:
            with pytest.raises(ConnectionLost):
                await client.stub(EchoStub).Unary(EchoRequest(text="exit:3"))
            assert await pid_of(client)


async def test_an_idle_plugin_is_stopped_until_the_next_call() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), idle_timeout=0.04) as client, client.events() as events:
            first = await pid_of(client)
            stopped = await until(events, "stopped")
            assert (stopped.pid, stopped.reason) == (first, "it was idle")
            assert stopped.exit is not None
            assert stopped.exit.status == 0
            assert client.pid is None
            assert await pid_of(client) != first


async def test_a_plugin_with_an_open_call_is_not_idle() -> None:
    with anyio.fail_after(10):
        async with (
            plugin_client(echo(), idle_timeout=0.02) as client,
            client.events() as events,
            client.stub(EchoStub).Bidi.open() as stream,
        ):
            await stream.send_message(EchoRequest())
            assert await stream.recv_message() is not None
            mine = client.pid
            with anyio.move_on_after(0.2) as scope:
                # It may have been idle too long before the call began.
                while (await until(events, "stopped")).pid != mine:
                    pass
            assert scope.cancelled_caught
            await stream.send_message(EchoRequest(text="x"), end=True)
            assert await stream.recv_message() is not None


# --- replaced ---------------------------------------------------------------------------------


async def test_reloading_lets_old_calls_end_and_sends_new_ones_to_the_new_plugin() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON) as client, client.events() as events:
            first = await pid_of(client)
            async with client.stub(EchoStub).Bidi.open() as stream:
                await stream.send_message(EchoRequest(text="a"))
                assert await stream.recv_message() is not None
                await client.reload()
                assert await pid_of(client) == client.pid != first
                await stream.send_message(EchoRequest(text="b"), end=True)
                reply = await stream.recv_message()
                assert reply is not None
                assert reply.text == "b"
                assert await stream.recv_message() is None
            stopped = await until(events, "stopped")
            assert (stopped.pid, stopped.reason) == (first, "it was replaced")


@pytest.mark.parametrize("idempotent", [True, False])
async def test_what_the_old_plugin_does_not_complete_is_made_again_only_if_it_may_be(
    tmp_path: Path, idempotent: bool
) -> None:
    mark = tmp_path / "begun"
    ended: list[Any] = []
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON, grpc_grace_period=0) as client:

            async def hang() -> None:
                stub = client.stub(EchoStub, idempotent=idempotent)
                try:
                    ended.append((await stub.Unary(EchoRequest(text=f"hang-once:{mark}"))).text)
                except GRPCError as error:
                    ended.append(error.status)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hang)
                while not mark.exists():
                    await pid_of(client)
                await client.reload(drain_timeout=0)
    assert ended == [f"hang-once:{mark}" if idempotent else Status.UNAVAILABLE]


async def test_no_call_fails_while_a_plugin_is_reloaded() -> None:
    with anyio.fail_after(30):
        async with plugin_client(echo(), restart=SOON) as client:
            pids: set[int] = set()
            done = anyio.Event()

            async def call() -> None:
                while not done.is_set():
                    pids.add(await pid_of(client))

            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(call)
                for _ in range(3):
                    pids.add(await pid_of(client))
                    await client.reload()
                pids.add(await pid_of(client))
                done.set()
            assert len(pids) == 4


async def test_one_that_cannot_be_started_does_not_replace_the_one_that_runs() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON, client_retry_enabled=False) as client:
            first = await pid_of(client)
            with pytest.raises(RPCPluginError) as caught:
                await client.reload(broken("exits"))
            assert caught.value.exit_status == 3
            assert await pid_of(client) == first
            await client.reload(echo("--loop", "trio"))
            assert await pid_of(client) != first
            assert (await client.stub(EchoStub).Unary(EchoRequest(text="loop"))).text == "trio"


# --- pools ---------------------------------------------------------------------------------------


async def test_calls_spread_over_the_plugins_of_a_pool() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=PoolPolicy(size=3)) as client:
            stub = client.stub(EchoStub)
            async with stub.Bidi.open() as one, stub.Bidi.open() as two, stub.Bidi.open() as three:
                for stream in (one, two, three):
                    await stream.send_message(EchoRequest(text="x"))
                    assert await stream.recv_message() is not None
                assert len(client.pids) == 3
                loads = [channel.open_calls(None) for channel in members(client)]
                assert max(loads) == min(loads)
                for stream in (one, two, three):
                    await stream.end()


def members(client: RPCPluginClient) -> Any:
    channel: Any = client.grpc_channel
    return channel.members


async def test_a_dead_plugin_of_a_pool_fails_no_call_that_another_can_take() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=PoolPolicy(size=2), restart=SOON) as client:
            for _ in range(3):
                os.kill(client.pids[0], signal.SIGKILL)
                for _ in range(20):
                    try:
                        await pid_of(client)
                    except ConnectionLost:
                        # It had begun on the one that was killed.
                        continue


async def test_a_spare_takes_the_place_of_one_that_has_died() -> None:
    policy = RestartPolicy(initial_backoff=10, max_backoff=10)
    with anyio.fail_after(20):
        async with (
            plugin_client(echo(), pool=PoolPolicy(size=1, spares=1), restart=policy) as client,
            client.events() as events,
        ):
            first = await pid_of(client)
            os.kill(first, signal.SIGKILL)
            await until(events, "exited")
            second = await pid_of(client, timeout=5)
            assert second != first


async def test_a_pool_grows_when_all_are_busy_and_shrinks_again() -> None:
    pool = PoolPolicy(size=1, max_size=2, shrink_after=0.3)
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=pool) as client, client.events() as events:
            stub = client.stub(EchoStub)
            async with stub.Bidi.open() as one:
                await one.send_message(EchoRequest(text="x"))
                assert await one.recv_message() is not None
                assert len(client.pids) == 1
                await pid_of(client)  # All are busy.
                await until(events, "started")
                assert len(client.pids) == 2
                stopped = await until(events, "stopped")
                assert stopped.reason == "it was idle"
                assert len(client.pids) == 1
                await one.end()


@pytest.mark.parametrize(
    "limits", [{"max_calls": 5}, {"max_age": 0.05}, {"max_memory": 1}], ids=lambda limits: [*limits]
)
async def test_a_plugin_of_a_pool_is_replaced_when_it_is_worn(limits: dict[str, Any]) -> None:
    pool = PoolPolicy(size=1, check_interval=0.02, **limits)
    with anyio.fail_after(20):
        async with plugin_client(echo(), pool=pool) as client, client.events() as events:
            first = await pid_of(client)
            for _ in range(4):
                await pid_of(client)
            stopped = await until(events, "stopped")
            assert (stopped.pid, stopped.reason) == (first, "it was replaced")
            assert await pid_of(client) != first


async def test_a_pool_of_plugins_that_cannot_start_leaves_none() -> None:
    client = plugin_client(broken("exits"), pool=PoolPolicy(size=3), client_retry_enabled=False)
    with anyio.fail_after(20), pytest.raises(RPCPluginError) as caught:
        await client.start()
    assert caught.value.exit_status == 3


# --- calls that do no harm when they are made twice ------------------------------------------------


class Echoing(Protocol):
    async def nothing(self) -> None: ...


async def test_an_idempotent_call_that_had_begun_is_made_again() -> None:
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=SOON) as client:
            stub = client.stub(EchoStub, idempotent={"Unary"})
            assert (await stub.Unary(EchoRequest(text="kill-once"))).text == "kill-once"
            with pytest.raises(ConnectionLost):
                await client.stub(EchoStub).Unary(EchoRequest(text="kill"))


async def test_an_idempotent_call_of_a_plugin_that_is_given_up_fails_at_once() -> None:
    policy = RestartPolicy(initial_backoff=0.01, max_restarts=1)
    with anyio.fail_after(20):
        async with plugin_client(echo(), restart=policy) as client:
            stub = client.stub(EchoStub, idempotent=True)
            with pytest.raises(ConnectionLost, match="is given up"):
                await stub.Unary(EchoRequest(text="kill"))


def test_an_idempotent_method_has_to_be_one() -> None:
    client = plugin_client(echo())
    with pytest.raises(ConfigError, match="no method 'Unnary'"):
        client.stub(EchoStub, idempotent={"Unnary"})
    with pytest.raises(ConfigError, match="no method 'something'"):
        client.proxy(Echoing, idempotent={"something"})
    client.proxy(Echoing, idempotent={"nothing"})
