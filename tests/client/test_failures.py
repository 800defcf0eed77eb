"""A plugin that cannot be started is a clear error at once, and leaves nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    RPCPluginError,
    TransportError,
    plugin_client,
)
from tests.plugins import broken, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.process


async def fail(command, expected: type[RPCPluginError], **options) -> RPCPluginError:
    client = plugin_client(command, **options)
    with anyio.fail_after(5), pytest.raises(expected) as caught:
        await client.start()
    error = caught.value
    assert type(error) is expected
    assert len(str(error).splitlines()) <= 6
    assert client.grpc_channel is None
    with anyio.fail_after(5):
        await client.stop()
    return error


async def test_no_such_file(tmp_path: Path) -> None:
    error = await fail([str(tmp_path / "nothing")], TransportError)
    assert "nothing" in error.message
    assert error.exit_status is None


async def test_not_executable(tmp_path: Path) -> None:
    file = tmp_path / "plugin"
    file.write_text("#!/bin/sh\n")
    await fail([str(file)], TransportError)


async def test_exits_before_the_line() -> None:
    error = await fail(broken("exits"), HandshakeError)
    assert error.exit_status == 3
    assert "status 3" in error.message
    assert error.stderr_tail[-1] == "reason 99"
    assert len(error.stderr_tail) == 64
    assert (error.hint or "").endswith("stderr: reason 97\nstderr: reason 98\nstderr: reason 99")
    assert error.phase == "handshake"


async def test_killed_by_a_signal() -> None:
    error = await fail(broken("killed"), HandshakeError, client_retry_enabled=False)
    assert error.exit_status == -9
    assert "SIGKILL" in error.message


async def test_prints_nothing_and_closes_its_output() -> None:
    error = await fail(broken("closes-stdout"), HandshakeError)
    assert error.stderr_tail == ("starting closes-stdout",)


async def test_prints_nothing_in_time() -> None:
    # A shell, which has said so long before its time is over, as an interpreter may not have.
    silent = ["/bin/sh", "-c", "echo starting silent >&2; exec sleep 60"]
    error = await fail(silent, HandshakeError, handshake_timeout=1, client_retry_enabled=False)
    assert "within 1 seconds" in error.message
    assert "PLUGIN_HANDSHAKE_TIMEOUT" in (error.hint or "")
    assert error.stderr_tail == ("starting silent",)


async def test_the_time_for_all_attempts_is_named_where_it_was_that_which_ended() -> None:
    error = await fail(broken("silent"), HandshakeError, client_retry_total_timeout_s=0.3)
    assert "PLUGIN_CLIENT_RETRY_TOTAL_TIMEOUT_S" in (error.hint or "")


async def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await fail(
            None,
            TransportError,
            address=f"127.0.0.1:{silent.getsockname()[1]}",
            connection_timeout=0.3,
            client_retry_enabled=False,
        )
    assert "within 0.3 seconds" in error.message
    assert "PLUGIN_CONNECTION_TIMEOUT" in (error.hint or "")


@pytest.mark.parametrize("mode", ["noise", "lines"])
async def test_prints_noise_only(mode: str) -> None:
    error = await fail(broken(mode), HandshakeError)
    assert "no handshake line in the first" in error.message


@pytest.mark.parametrize(
    ("mode", "words"),
    [("malformed", "unrecognized"), ("core", "2"), ("app", "7"), ("netrpc", "netrpc")],
)
async def test_a_line_that_does_not_fit(mode: str, words: str) -> None:
    error = await fail(broken(mode), HandshakeError)
    assert words in error.message
    assert error.exit is not None


@pytest.mark.parametrize("mode", ["dead-unix", "dead-tcp"])
async def test_a_dead_address(mode: str) -> None:
    error = await fail(broken(mode), TransportError, client_max_retries=1, auto_mtls=False)
    assert error.phase == "connect"


async def test_something_else_than_grpc() -> None:
    error = await fail(
        broken("not-grpc"), TransportError, client_retry_enabled=False, auto_mtls=False
    )
    assert error.phase == "connect"


async def test_an_exit_is_noticed_while_a_child_holds_the_output_open() -> None:
    error = await fail(broken("leaves-children"), HandshakeError)
    assert error.exit_status == 4


async def test_a_wrong_cookie_names_the_variable_and_never_the_value() -> None:
    error = await fail(echo(), HandshakeError, magic_cookie_value="not-the-right-one")
    assert error.exit_status == 1
    assert "PLUGIN_MAGIC_COOKIE" in str(error)
    assert "not-the-right-one" not in str(error) + "".join(error.stderr_tail)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("./plugin", {}),
        ([], {}),
        ([3], {}),
        (None, {}),
        (["x"], {"address": "127.0.0.1:1"}),
        (["x"], {"config": {"PLUGIN_HANDSHAKE_TIMEOUT": "soon"}}),
        (["x"], {"stdin": "tty"}),
        (["x"], {"config": {"env": ["A=1"]}}),
        (["x"], {"config": "PLUGIN_HANDSHAKE_TIMEOUT=3"}),
        (["x"], {"env": {"A=": "1"}}),
    ],
)
async def test_wrong_arguments_fail_the_start_and_not_the_factory(command, options) -> None:
    await fail(command, ConfigError, **options)


def test_an_unknown_keyword_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        plugin_client(["x"], handshake_timeuot=3)
    assert "handshake_timeout" in (caught.value.hint or "")
    with pytest.raises(ConfigError) as caught:
        plugin_client(["x"], adress="x")
    assert "address" in (caught.value.hint or "")


async def test_a_failure_that_may_pass_is_tried_again(tmp_path: Path) -> None:
    command = broken("killed-once", str(tmp_path / "marker"), *echo()[1:])
    with anyio.fail_after(10):
        async with plugin_client(command, client_initial_backoff_ms=1) as client:
            reply = await client.stub(EchoStub).Unary(EchoRequest(text="x"))
    assert reply.text == "x"


async def test_retries_are_counted_and_the_last_error_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        error = await fail(
            broken("killed"),
            HandshakeError,
            client_max_retries=2,
            client_initial_backoff_ms=1,
            client_retry_jitter_ms=0,
        )
    assert error.exit_status == -9
    assert caplog.text.count("trying again") == 2


async def test_a_wait_that_would_outlast_all_attempts_is_not_begun() -> None:
    # Inside fail_after(5): the pause before the second attempt would take longer.
    await fail(
        broken("killed"),
        HandshakeError,
        client_initial_backoff_ms=60_000,
        client_max_backoff_ms=60_000,
        client_retry_total_timeout_s=30,
    )


async def test_a_cancelled_start_leaves_nothing() -> None:
    client = plugin_client(broken("silent"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.start)
            while client.pid is None:
                await anyio.lowlevel.checkpoint()
            tg.cancel_scope.cancel()
        assert client.grpc_channel is None
        await client.stop()


async def test_stopping_from_another_task_fails_a_start() -> None:
    client = plugin_client(broken("silent"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:

            async def start() -> None:
                with pytest.raises(RPCPluginError, match="stopped before"):
                    await client.start()

            tg.start_soon(start)
            while client.pid is None:
                await anyio.lowlevel.checkpoint()
            await client.stop()


def test_a_plugin_run_by_hand_says_so_in_a_few_words() -> None:
    result = subprocess.run(
        echo(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert "no host started it" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 4
    assert sys.executable
