"""Plugins that are started by something else than this process, and see other addresses."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    RestartPolicy,
    RPCPluginError,
    SecureConfig,
    TransportError,
    plugin_client,
)
from pyvider_rpcplugin.process import ResourceLimits, RunSpec, WrappedRunner, subprocess_runner
from pyvider_rpcplugin.rpc import ConnectionLost
from tests.broker.test_pairs import Callback, ask, number_from
from tests.plugins import broken, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process

# A path that leads to the folder of the sockets in the plugin's process, and elsewhere in others.
INSIDE = "/proc/self/cwd"
BROKER_PLUGIN = str(Path(__file__).parents[1] / "plugins" / "broker_plugin.py")


class Moved(WrappedRunner):
    """Its plugin has the folder of the sockets elsewhere."""

    def __init__(self, inner: Any, folder: str, log: list[tuple[str, str]]) -> None:
        super().__init__(inner)
        self._folder = folder
        self._log = log

    def plugin_to_host(self, network: str, address: str) -> tuple[str, str]:
        assert address.startswith(INSIDE)
        self._log.append(("to host", address))
        return network, self._folder + address.removeprefix(INSIDE)

    def host_to_plugin(self, network: str, address: str) -> tuple[str, str]:
        assert address.startswith(self._folder)
        address = INSIDE + address.removeprefix(self._folder)
        self._log.append(("to plugin", address))
        return network, address


def elsewhere(log: list[tuple[str, str]]) -> Any:
    """A runner that starts the plugin by a shell and `env -i`, with its folder moved."""

    @asynccontextmanager
    async def start(spec: RunSpec):
        assert spec.socket_folder is not None
        variables = spec.env | {"PLUGIN_UNIX_SOCKET_DIR": INSIDE}
        words = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        shell = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", spec.socket_folder]
        outer = spec.replace(command=[*shell, *words, *spec.command], env=dict(os.environ))
        async with subprocess_runner(outer) as inner:
            yield Moved(inner, spec.socket_folder, log)

    return start


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
async def test_a_plugin_in_another_place_and_its_broker_in_both_directions(loop: str) -> None:
    log: list[tuple[str, str]] = []
    command = [*echo()[:1], BROKER_PLUGIN, "--loop", loop]
    with anyio.fail_after(15):
        async with plugin_client(command, runner=elsewhere(log)) as client:
            assert await ask(client, "hello") == "hello"
            async with client.broker.serve(Callback()) as number:
                answer = await ask(client, "call-back", number)
            assert answer == "host heard from the plugin"
            async with client.stub(EchoStub).ServerStream.open() as stream:
                number = await number_from(stream, "inner")
                async with client.broker.dial(number) as channel:
                    reply = await EchoStub(channel).Unary(EchoRequest(text="hello"))
                assert reply.text == "inner: hello"
                await stream.cancel()
            pid = client.pid
            assert client.id == str(pid)
    assert client.exit is not None
    assert client.exit.status == 0
    assert [way for way, _ in log] == ["to host", "to plugin", "to host"]


async def test_what_the_plugin_is_started_with_is_in_the_spec(tmp_path: Path) -> None:
    specs: list[RunSpec] = []

    @asynccontextmanager
    async def start(spec: RunSpec):
        specs.append(spec)
        async with subprocess_runner(spec) as runner:
            yield runner

    limits = ResourceLimits(open_files=100)
    options: dict[str, Any] = {"env": {"A_SECRET": "b"}, "cwd": tmp_path, "limits": limits}
    with anyio.fail_after(10):
        async with plugin_client(echo(), runner=start, **options) as client:
            await client.ping()
    [spec] = specs
    assert (spec.command, spec.cwd, spec.limits) == (echo(), str(tmp_path), limits)
    assert spec.env["A_SECRET"] == "b"
    assert spec.env["PLUGIN_UNIX_SOCKET_DIR"] == spec.socket_folder
    assert "A_SECRET" not in repr(spec)


async def test_a_runner_needs_no_command() -> None:
    @asynccontextmanager
    async def start(spec: RunSpec):
        assert spec.command == []
        async with subprocess_runner(spec.replace(command=echo())) as runner:
            yield runner

    with anyio.fail_after(10):
        async with plugin_client(runner=start) as client:
            await client.ping()


class Streams:
    """Output that is no pipe of this process."""

    def __init__(self, source: Any) -> None:
        self._source = source

    async def receive(self, max_bytes: int = 65536, /) -> bytes:
        data: bytes = await self._source.receive(max_bytes)
        return data


class Remote(WrappedRunner):
    """What a runner for another machine gives: no process, no pipes, no more than that."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._out, self._err = Streams(inner.stdout), Streams(inner.stderr)
        self.asked: list[str] = []

    @property
    def id(self) -> str:
        return "container-7"

    @property
    def pid(self) -> int | None:
        return None

    @property
    def stdout(self) -> Any:
        return self._out

    @property
    def stderr(self) -> Any:
        return self._err

    async def diagnose(self) -> str:
        return "the image\nhas no such program"

    async def kill(self) -> None:
        self.asked.append("kill")
        await super().kill()

    async def terminate(self) -> None:
        self.asked.append("terminate")
        msg = "the daemon is away"
        raise ConnectionError(msg)


def remote(made: list[Remote]) -> Any:
    @asynccontextmanager
    async def start(spec: RunSpec):
        async with subprocess_runner(spec) as inner:
            made.append(Remote(inner))
            yield made[-1]

    return start


async def test_a_plugin_without_a_process_of_this_machine() -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), runner=remote([])) as client:
            assert (client.id, client.pid) == ("container-7", None)
            with pytest.raises(ConnectionLost) as caught:
                await client.stub(EchoStub).Unary(EchoRequest(text="exit:9"))
            assert caught.value.exit is not None
            assert caught.value.exit.status == 9
            assert caught.value.exit.stderr_tail[-1] == "going"
            assert (await client.wait()).status == 9


async def test_a_start_that_fails_says_what_the_runner_knows() -> None:
    with anyio.fail_after(10):
        with pytest.raises(HandshakeError) as caught:
            await plugin_client(broken("exits"), runner=remote([])).start()
    assert caught.value.exit_status == 3
    hint = (caught.value.hint or "").splitlines()
    assert hint[0] == "the image has no such program"
    assert hint[-1] == "stderr: reason 99"


async def test_a_runner_that_cannot_ask_ends_its_plugin_by_force(caplog: Any) -> None:
    made: list[Remote] = []
    with anyio.fail_after(10):
        client = plugin_client(
            broken("silent"), runner=remote(made), handshake_timeout=0.2, client_retry_enabled=False
        )
        with pytest.raises(HandshakeError):
            await client.start()
    assert made[0].asked == ["terminate", "kill"]
    assert "the daemon is away" in caplog.text


async def test_a_runner_that_fails_is_the_error_of_the_start() -> None:
    @asynccontextmanager
    async def start(spec: RunSpec):
        msg = "no such image"
        raise LookupError(msg)
        yield

    with anyio.fail_after(5), pytest.raises(TransportError, match="no such image") as caught:
        await plugin_client(echo(), runner=start).start()
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.phase == "launch"


async def test_the_plugins_error_is_not_lost_in_the_runners_task_group() -> None:
    @asynccontextmanager
    async def start(spec: RunSpec):
        async with anyio.create_task_group(), subprocess_runner(spec) as runner:
            yield runner

    with anyio.fail_after(5), pytest.raises(HandshakeError):
        await plugin_client(broken("exits"), runner=start).start()


async def test_a_runner_that_fails_while_its_plugin_runs_ends_it_and_nothing_else() -> None:
    fail = anyio.Event()

    @asynccontextmanager
    async def failing(spec: RunSpec) -> AsyncIterator[WrappedRunner]:
        async def watch() -> None:
            await fail.wait()
            msg = "the machine is gone"
            raise OSError(msg)

        async with subprocess_runner(spec) as inner, anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            yield WrappedRunner(inner)
            tasks.cancel_scope.cancel()

    with anyio.fail_after(10):
        async with (
            plugin_client(
                echo(), runner=failing, restart=RestartPolicy(initial_backoff=0)
            ) as client,
            client.events() as events,
        ):
            first = client.pid
            fail.set()
            async for event in events:
                if event.kind == "exited":
                    break
            fail = anyio.Event()
            reply = await client.stub(EchoStub).Unary(EchoRequest(text="pid"))
            assert int(reply.text) == client.pid != first


async def test_what_fails_in_the_end_of_a_runner_is_logged(caplog: Any) -> None:
    @asynccontextmanager
    async def start(spec: RunSpec):
        async with subprocess_runner(spec) as runner:
            yield runner
        msg = "the volume is busy"
        raise OSError(msg)

    with anyio.fail_after(5), pytest.raises(HandshakeError):
        await plugin_client(broken("exits"), runner=start).start()
    assert "the volume is busy" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runner": "docker"}, "a function"),
        ({"runner": lambda spec: "x"}, "no"),
        ({"runner": lambda spec: "x", "address": "/p", "command": None}, "one of these|runner="),
        ({"runner": lambda spec: "x", "secure": SecureConfig("sha256", "0" * 64)}, "secure="),
        ({"debug": "now"}, "'wait'"),
        ({"reattach": {"Addr": {"Network": "unix", "String": "/p"}}}, "one of these"),
    ],
)
async def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    with anyio.fail_after(5), pytest.raises(ConfigError, match=words):
        await plugin_client(**{"command": echo(), **options}).start()


async def left_by(runner: Any) -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), runner=runner, outlive_host=True) as client:
            assert client.pid is not None
            record = await client.detach()
        async with plugin_client(reattach=record) as client:
            await client.ping()
        assert client.exit is not None
        assert client.exit.status == 0


async def test_a_plugin_that_a_wrapped_runner_has_started_can_be_left() -> None:
    @asynccontextmanager
    async def start(spec: RunSpec):
        # The plugin makes a folder for its sockets itself: this one would go with its host.
        assert spec.outlives_host
        assert spec.socket_folder is None
        async with subprocess_runner(spec) as inner:
            yield WrappedRunner(inner)

    await left_by(start)


async def test_a_runner_that_cannot_let_go_ends_its_plugin() -> None:
    class Kept(WrappedRunner):
        def __getattribute__(self, name: str) -> Any:
            if name == "release":
                raise AttributeError(name)
            return super().__getattribute__(name)

    @asynccontextmanager
    async def start(spec: RunSpec):
        async with subprocess_runner(spec) as inner:
            yield Kept(inner)

    with anyio.fail_after(10):
        async with plugin_client(echo(), runner=start, outlive_host=True) as client:
            with pytest.raises(RPCPluginError, match=r"no release\(\)"):
                await client.detach()
            await client.ping()
        assert client.exit is not None


async def test_what_outlives_its_host_does_not_read_from_its_terminal() -> None:
    client = plugin_client(echo(), stdin="inherit", outlive_host=True)
    with anyio.fail_after(5), pytest.raises(ConfigError, match="terminal"):
        await client.start()
