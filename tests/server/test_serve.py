"""A server inside of a program: every way to run it, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import anyio
import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    ProtocolError,
    RPCPluginError,
    TransportError,
    plugin_client,
    plugin_server,
)
from pyvider_rpcplugin.server import RPCPluginServer
from pyvider_rpcplugin.services import ServingStatus, check_health
from pyvider_rpcplugin.services._messages import Empty, HealthCheckRequest, HealthCheckResponse
from pyvider_rpcplugin.transport import TCPSocketTransport, UnixSocketTransport
from tests.plugins.echo_plugin import Echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

pytestmark = pytest.mark.net


def make(**options) -> RPCPluginServer:
    return plugin_server(handler=Echo(), standalone=True, **options)


async def call(address: str, text: str = "x") -> str:
    async with plugin_client(address=address) as client:
        return (await client.stub(EchoStub).Unary(EchoRequest(text=text))).text


@pytest.mark.parametrize("transport", ["tcp", "unix", None])
async def test_it_serves_while_a_block_runs(transport: str | None) -> None:
    server = make(transport=transport)
    with anyio.fail_after(5):
        async with server.serve() as address:
            assert server.get_address() == address
            assert await call(address) == "x"
    with pytest.raises(TransportError, match="no address"):
        server.get_address()


async def test_it_serves_in_a_task_group_and_gives_the_address() -> None:
    server = make(transport="tcp")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            address = await tg.start(server.serve)
            assert await call(address) == "x"
            await server.stop()
        # It has ended by itself; the group was not cancelled.
        assert not tg.cancel_scope.cancel_called


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it_serves_in_a_nursery_of_trios() -> None:
    server = make(transport="tcp")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(server.serve)
            assert await call(address) == "x"
            nursery.cancel_scope.cancel()


async def test_it_serves_here_and_now_until_stopped() -> None:
    server = make(transport="tcp")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:

            async def stop() -> None:
                while True:
                    with contextlib.suppress(TransportError):
                        address = server.get_address()
                        break
                    await anyio.lowlevel.checkpoint()
                assert await call(address) == "x"
                await server.stop(grace_period=1)

            tg.start_soon(stop)
            await server.serve()


def test_it_runs_wherever_a_coroutine_does() -> None:
    def stopping() -> RPCPluginServer:
        class StopsAtOnce(Echo):
            def __mapping__(self):
                return super().__mapping__()

        return plugin_server(handler=StopsAtOnce(), standalone=True, shutdown_file_path="stop")

    for run in (
        lambda server: asyncio.run(server.serve()),
        lambda server: trio.run(server.serve),
        lambda server: anyio.run(server.serve),
        lambda server: anyio.run(server.serve, backend="trio"),
        lambda server: server.run(),
        lambda server: server.run(backend="trio"),
    ):
        Path("stop").touch()
        run(stopping())
        assert not Path("stop").exists()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_it_can_serve_again_and_not_twice_at_once() -> None:
    server = make(transport="tcp")
    with anyio.fail_after(5):
        for _ in range(2):
            async with server.serve() as address:
                assert await call(address) == "x"
                assert await health(address) is ServingStatus.SERVING
                with pytest.raises(RPCPluginError, match="serves already"):
                    await server.serve()


async def health(address: str, service: str = "plugin") -> ServingStatus:
    async with plugin_client(address=address) as client:
        return await check_health(client.grpc_channel, service)


async def test_stop_before_serve_and_twice_does_nothing() -> None:
    server = make()
    with anyio.fail_after(5):
        await server.stop()
        async with server.serve():
            await server.stop()
            await server.stop(0)
        async with server.stop():
            pass


async def test_a_stop_refuses_new_calls_and_lets_running_ones_finish() -> None:
    release = anyio.Event()
    entered = anyio.Event()

    class Slow(Echo):
        async def Unary(self, stream):
            if (await stream.recv_message()).text == "slow":
                entered.set()
                await release.wait()
            await stream.send_message(EchoReply(text="done"))

    from tests.protos.echo_pb2 import EchoReply

    server = plugin_server(handler=Slow(), standalone=True, transport="tcp")
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            stub = client.stub(EchoStub)
            async with anyio.create_task_group() as tg:

                async def slow() -> None:
                    assert (await stub.Unary(EchoRequest(text="slow"))).text == "done"

                tg.start_soon(slow)
                await entered.wait()
                async with server.stop(5):
                    await anyio.wait_all_tasks_blocked()
                    with pytest.raises(GRPCError) as caught:
                        await stub.Unary(EchoRequest())
                    assert caught.value.status is Status.UNAVAILABLE
                    release.set()


async def test_calls_that_outlast_the_grace_are_cancelled() -> None:
    server = make(transport="tcp")
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            stub = client.stub(EchoStub)
            async with anyio.create_task_group() as tg:

                async def hang() -> None:
                    with pytest.raises(GRPCError) as caught:
                        await stub.Unary(EchoRequest(text="hang"))
                    assert caught.value.status is Status.UNAVAILABLE

                tg.start_soon(hang)
                await stub.Unary(EchoRequest())
                await server.stop(0)


async def test_a_handler_may_stop_its_server() -> None:
    class Stops(Echo):
        async def Unary(self, stream):
            await stream.recv_message()
            await server.stop(0.05)

    server = plugin_server(handler=Stops(), standalone=True, transport="tcp")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            address = await tg.start(server.serve)
            with pytest.raises(GRPCError) as caught:
                await call(address)
            assert caught.value.status is Status.UNAVAILABLE


async def test_cancelling_serve_ends_it_and_removes_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = make(transport="unix", transport_path=str(path))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            assert await tg.start(server.serve) == str(path)
            assert path.is_socket()
            tg.cancel_scope.cancel()
    assert not path.exists()


async def test_blocks_of_two_servers_may_be_left_oldest_first() -> None:
    with anyio.fail_after(5):
        first, second = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        await first.enter_async_context(make().serve())
        address = await second.enter_async_context(make().serve())
        await first.aclose()
        assert await call(address) == "x"
        await second.aclose()


async def test_transports_and_settings_say_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    with anyio.fail_after(10):
        async with make(transport=UnixSocketTransport(path)).serve() as address:
            assert address == str(path)
        async with make(transport=TCPSocketTransport("::1")).serve() as address:
            assert address.startswith("[::1]:")
            assert await call(address) == "x"
        async with make(server_transports="tcp", server_host="::1").serve() as address:
            assert address.startswith("[::1]:")
        async with make(host="127.0.0.1").serve() as address:
            assert address.startswith("127.0.0.1:")
        async with make(server_transports="tcp", min_port=23000, max_port=23999).serve() as address:
            assert address.startswith("127.0.0.1:23")
        async with make(config={"PLUGIN_SERVER_UNIX_SOCKET_PATH": str(path)}).serve() as address:
            assert address == str(path)
        monkeypatch.setenv("PLUGIN_SERVER_TRANSPORTS", "tcp")
        async with make().serve() as address:
            assert address.startswith("127.0.0.1:")


async def test_the_next_transport_is_tried_where_one_cannot_listen(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    server = make(server_unix_socket_path=str(file), server_transports="unix,tcp")
    with anyio.fail_after(5):
        async with server.serve() as address:
            assert address.startswith("127.0.0.1:")
    assert file.is_file()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"transport": "pigeon"}, ConfigError),
        ({"config": {"PLUGIN_MAX_WORKERS": "many"}}, ConfigError),
        ({"transport": "unix", "transport_path": "/nowhere/s"}, TransportError),
    ],
)
async def test_what_is_wrong_is_raised_by_serve(options, error: type[RPCPluginError]) -> None:
    server = make(**options)
    with anyio.fail_after(5):
        with pytest.raises(error):
            await server.serve()
        with pytest.raises(error):
            async with server.serve():
                pass


async def test_a_server_without_a_host_says_so() -> None:
    with anyio.fail_after(5), pytest.raises(HandshakeError, match="no host started it"):
        await plugin_server(handler=Echo()).serve()


async def test_a_server_with_nothing_to_serve_says_so() -> None:
    with anyio.fail_after(5), pytest.raises(ProtocolError, match="nothing to serve"):
        await plugin_server(handler=object(), standalone=True).serve()


def test_an_unknown_keyword_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        plugin_server(handler=Echo(), max_wrokers=3)
    assert "max_workers" in (caught.value.hint or "")


# The standard services.


async def test_health_is_served_as_the_standard_says() -> None:
    server = make(transport="tcp")
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            channel = client.grpc_channel
            assert await check_health(channel) is ServingStatus.SERVING
            assert await check_health(channel, "") is ServingStatus.SERVING
            assert await check_health(channel, "testing.echo.Echo") is ServingStatus.SERVING
            with pytest.raises(GRPCError) as caught:
                await check_health(channel, "nobody")
            assert caught.value.status is Status.NOT_FOUND
            server.health.set_status("plugin", ServingStatus.NOT_SERVING)
            assert await check_health(channel) is ServingStatus.NOT_SERVING
            with pytest.raises(RPCPluginError, match="NOT_SERVING"):
                await client.ping()
            assert await listed(channel) == {
                "": ServingStatus.SERVING,
                "plugin": ServingStatus.NOT_SERVING,
                "testing.echo.Echo": ServingStatus.SERVING,
            }
            server.health.set_status("testing.echo.Echo", ServingStatus.UNKNOWN)
            server.health.set_status("mine", ServingStatus.SERVING)
            assert (await listed(channel))["testing.echo.Echo"] is ServingStatus.UNKNOWN
            assert await check_health(channel, "mine") is ServingStatus.SERVING


async def listed(channel) -> dict[str, ServingStatus]:
    from grpclib.const import Cardinality

    from pyvider_rpcplugin.services._messages import HealthListResponse

    async with channel.request(
        "/grpc.health.v1.Health/List", Cardinality.UNARY_UNARY, Empty, HealthListResponse
    ) as stream:
        await stream.send_message(Empty(), end=True)
        reply = await stream.recv_message()
    return {name: response.status for name, response in reply.statuses.items()}


async def status(stream) -> ServingStatus:
    message = await stream.recv_message()
    assert message is not None
    return message.status


async def test_health_can_be_watched_to_the_end() -> None:
    from grpclib.const import Cardinality

    server = make(transport="tcp")
    seen = []
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            channel = client.grpc_channel
            assert channel is not None
            with pytest.raises(GRPCError) as caught:
                async with channel.request(
                    "/grpc.health.v1.Health/Watch",
                    Cardinality.UNARY_STREAM,
                    HealthCheckRequest,
                    HealthCheckResponse,
                ) as stream:
                    await stream.send_message(HealthCheckRequest("mine"), end=True)
                    seen.append(await status(stream))
                    server.health.set_status("mine", ServingStatus.SERVING)
                    seen.append(await status(stream))
                    # The stop does not wait for a watcher; the grace would be too long for this.
                    async with server.stop(60):
                        seen.append(await status(stream))
                        await stream.recv_message()
            assert caught.value.status is Status.UNAVAILABLE
    assert seen == [
        ServingStatus.SERVICE_UNKNOWN,
        ServingStatus.SERVING,
        ServingStatus.NOT_SERVING,
    ]


async def test_health_can_be_turned_off_and_only_hosts_may_shut_down() -> None:
    from grpclib.const import Cardinality

    server = make(transport="tcp", health_service_enabled=False)
    with anyio.fail_after(5):
        async with server.serve() as address, plugin_client(address=address) as client:
            with pytest.raises(GRPCError) as caught:
                await client.ping()
            assert caught.value.status is Status.UNIMPLEMENTED
            channel = client.grpc_channel
            assert channel is not None
            with pytest.raises(GRPCError) as caught:
                async with channel.request(
                    "/plugin.GRPCController/Shutdown", Cardinality.UNARY_UNARY, Empty, Empty
                ) as stream:
                    await stream.send_message(Empty(), end=True)
                    await stream.recv_message()
            assert caught.value.status is Status.UNIMPLEMENTED


async def test_it_touches_neither_descriptors_nor_signals_of_a_larger_program() -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), os.fstat(1).st_ino
    with anyio.fail_after(5):
        async with make().serve():
            during = (
                signal.getsignal(signal.SIGTERM),
                signal.getsignal(signal.SIGINT),
                os.fstat(1).st_ino,
            )
    assert before == during
