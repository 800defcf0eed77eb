"""Whatever the other side sends or does: a logged error, an error for who waits, and no more."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from grpclib.const import Cardinality

from pyvider_rpcplugin import RPCPluginError, TransportError, plugin_client
from pyvider_rpcplugin.config import Settings
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.services import Broker
from pyvider_rpcplugin.services._mailboxes import Heard
from pyvider_rpcplugin.services._messages import ConnInfo, Knock
from pyvider_rpcplugin.services._ways import SocketWays
from pyvider_rpcplugin.transport import MemoryTransport, transport_for
from tests.plugins import FOLDER, broken
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo

from .test_broker import PATH, Hostile, Raw, info, paired, reach
from .test_shared import in_virtual_time, shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = (r for r in caplog.records if r.name.startswith("pyvider_rpcplugin"))
    return [r.getMessage() for r in ours if r.levelno >= logging.ERROR]


# --- what a plugin hears from a host; the other way round is in test_broker.py


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        (b"\xff\xff\xff", "no ConnInfo"),
        (b"\x22\x02\x1a\xff", "no ConnInfo"),
        (info(1, "carrier pigeon"), "carrier pigeon"),
        (info(1, address=""), "no address"),
        (ConnInfo(1, knock=Knock(knock=True)).SerializeToString(), "without reason"),
        (ConnInfo(1, knock=Knock(knock=True, ack=True)).SerializeToString(), "without reason"),
        (info(9) + info(9), "announced again"),
    ],
)
async def test_a_plugin_logs_a_message_that_it_cannot_use(
    message: bytes, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(5):
        async with paired(talk=False) as pair:
            async with pair.channel.request(PATH, Cardinality.STREAM_STREAM, Raw, Heard) as stream:
                # Twice, so that what may be said once is said too often.
                await stream.send_message(Raw(info(9)))
                await stream.send_message(Raw(message))
                await stream.send_message(Raw(info(10)))
                for number in (9, 10):
                    with pytest.raises(TransportError, match="nobody is at nowhere"):
                        await reach(pair.plugin, number)
                await stream.cancel()
    [error] = errors(caplog)
    assert logged in error
    assert "host" in error


def test_of_two_dials_of_one_number_one_gets_the_service() -> None:
    ends: list[str] = []

    async def dial(broker: Broker, number: int) -> None:
        try:
            ends.append(await reach(broker, number))
        except TransportError as exc:
            ends.append(exc.message)

    async def main() -> None:
        async with paired() as pair, pair.host.serve(Echo()) as number:
            async with anyio.create_task_group() as tg:
                tg.start_soon(dial, pair.plugin, number)
                tg.start_soon(dial, pair.plugin, number)

    in_virtual_time(main)
    assert ends == ["x", "the host announced no service 1 within 5 seconds"]


# --- addresses of no use, and others than expected at an address


@asynccontextmanager
async def host_of(plugin: Hostile, *, network: str = "tcp") -> AsyncIterator[Broker]:
    """A host's broker with sockets, whose plugin announces what the test says."""
    ways = SocketWays(network, "127.0.0.1", Settings(), None, is_host=True)
    options = RPCOptions(settings_timeout=0.3)
    broker = Broker(ways, peer="plugin", options=options, grace=0.1, connection_timeout=2)
    transport = MemoryTransport()
    server = Server([plugin])
    async with transport.listen() as listener, anyio.create_task_group() as tg:
        await tg.start(server.serve, listener)
        await tg.start(broker.run)
        async with open_channel(Channel(transport.connect)) as channel:
            tg.start_soon(broker.keep_conversation, channel)
            yield broker
            broker.close()
            await server.stop(0)
            tg.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("tcp", "nonsense"),
        ("tcp", ":"),
        ("tcp", "127.0.0.1:"),
        ("tcp", "127.0.0.1:-1"),
        ("tcp", "127.0.0.1:99999"),
        ("tcp", "127.0.0.1:port"),
        ("tcp", "[::1:5"),
        ("tcp", "127.0.0.1:1\r\nx"),
        ("tcp", "127.0.0.1:1"),
        ("unix", "/nobody/is/here"),
        ("unix", "not/absolute"),
        ("unix", "x" * 300),
        ("unix", "\ufffd"),
        ("unix", str(FOLDER)),
        ("unix", __file__),
    ],
)
@pytest.mark.net
async def test_an_address_where_nobody_can_be_reached_is_an_error_of_the_dial_alone(
    network: str, address: str
) -> None:
    with anyio.fail_after(5):
        async with host_of(Hostile(info(1, network, address), info(2, "unix", "/no"))) as broker:
            for number in (1, 2):
                with pytest.raises(TransportError) as caught:
                    await reach(broker, number)
                assert caught.value.message


def hang_up(_peer: socket.socket) -> None:
    pass


def answer_http(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    peer.recv(1)


def send_nonsense(peer: socket.socket) -> None:
    peer.sendall(bytes(range(256)) * 100)
    peer.recv(1)


def say_nothing(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


@pytest.mark.parametrize("does", [hang_up, answer_http, send_nonsense, say_nothing])
@pytest.mark.net
async def test_somebody_else_at_the_address_is_an_error_of_the_dial_alone(
    does: Callable[[socket.socket], None],
) -> None:
    def serve(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer:
            with suppress(ConnectionError):
                does(peer)

    with anyio.fail_after(5), socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.to_thread.run_sync, serve, server)
            plugin = Hostile(info(1, "tcp", address), info(2, "unix", "/no"))
            async with host_of(plugin) as broker:
                for number in (1, 2):
                    with pytest.raises(RPCPluginError):
                        await reach(broker, number)


class Listening(Hostile):
    """A plugin that notes what its host announces."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[ConnInfo] = []
        self.changed = anyio.Event()

    async def _start(self, stream: Any) -> None:
        while (message := await stream.recv_message()) is not None:
            self.heard.append(message)
            self.changed.set()


@pytest.mark.parametrize("network", ["unix", "tcp"])
@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\0" * 70_000])
@pytest.mark.net
async def test_strangers_at_a_service_do_not_keep_others_from_it(
    network: str, words: bytes
) -> None:
    plugin = Listening()
    with anyio.fail_after(5):
        async with host_of(plugin, network=network) as broker, broker.serve(Echo()):
            await plugin.changed.wait()
            [announced] = plugin.heard
            transport = transport_for(announced.network, announced.address)
            for _ in range(5):
                stranger = await transport.connect()
                async with stranger:
                    if words:
                        await stranger.send(words)
            async with open_channel(Channel(transport.connect)) as channel:
                assert (await EchoStub(channel).Unary(EchoRequest(text="x"))).text == "x"


# --- knocks


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        (ConnInfo(3, knock=Knock(knock=True, ack=True)), "without reason"),
        (ConnInfo(3, knock=Knock(knock=True, ack=True, error="no")), "without reason"),
        (ConnInfo(3, knock=Knock(ack=True)), "without reason"),
        (ConnInfo(3, knock=Knock()), "without reason"),
        (ConnInfo(3, "unix", "/tmp/x"), "nothing is announced"),
        (ConnInfo(3), "nothing is announced"),
    ],
)
async def test_a_plugin_logs_a_knock_that_makes_no_sense(
    message: ConnInfo, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(5):
        async with shared() as both:
            both.host_ways.say(message)
            async with both.host.serve(Echo()) as number:
                assert await reach(both.plugin, number) == "x"
    [error] = errors(caplog)
    assert logged in error


async def test_a_flood_of_knocks_at_nobodys_door_does_no_harm() -> None:
    with anyio.fail_after(10):
        async with shared() as both:
            for number in range(100, 5000):
                both.host_ways.say(ConnInfo(number, knock=Knock(knock=True)))
            async with both.plugin.serve(Echo()) as number:
                assert await reach(both.host, number) == "x"
            assert len(both.plugin_ways._doors._early) <= 1024


async def test_a_door_that_is_opened_by_nobody_is_an_error_of_the_dial_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(5):
        async with shared() as both:
            async with anyio.create_task_group() as tg:

                async def dial() -> None:
                    with pytest.raises(TransportError):
                        await reach(both.plugin, 8)

                tg.start_soon(dial)
                await anyio.wait_all_tasks_blocked()
                # It says that it waits for the stream, and does not.
                both.host_ways.say(ConnInfo(8, knock=Knock(knock=True, ack=True)))
            async with both.host.serve(Echo()) as number:
                assert await reach(both.plugin, number) == "x"
    assert errors(caplog) == ["the other side opened a stream without knocking: refused"]


@pytest.mark.parametrize("words", [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b""])
async def test_a_stream_for_the_plugin_itself_that_is_no_connection_ends_alone(
    words: bytes,
) -> None:
    with anyio.fail_after(5):
        async with shared() as both:
            async with both.host_ways.open() as stream:
                if words:
                    await stream.send(words)
            async with both.plugin.serve(Echo()) as number:
                assert await reach(both.host, number) == "x"


# --- what is no shared connection at all


@pytest.mark.process
async def test_a_plugin_that_shares_no_connection_though_it_said_so_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = plugin_client(
        broken("not-yamux"), multiplex_grpc=True, auto_mtls=False, client_retry_enabled=False
    )
    with anyio.fail_after(10), pytest.raises(TransportError) as caught:
        await client.start()
    assert caught.value.phase == "connect"
    assert any("version 83" in error for error in errors(caplog))  # the S of SSH


@pytest.mark.process
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("words", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 7, b""])
def test_a_plugin_whose_connection_is_no_shared_one_ends(loop: str, words: bytes) -> None:
    """It takes one connection: once that is of no use, nobody can reach it any more."""
    environment = {
        "PLUGIN_MAGIC_COOKIE": "rpcplugin-default-cookie",
        "PLUGIN_PROTOCOL_VERSIONS": "1",
        "PLUGIN_MULTIPLEX_GRPC": "true",
    }
    command = [sys.executable, str(FOLDER / "broker_plugin.py"), "--loop", loop]
    with subprocess.Popen(
        command, env=os.environ | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        fields = process.stdout.readline().strip().split("|")
        assert fields[6] == "true"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(fields[3])
            sock.sendall(words)
            if len(words) < 12:
                sock.shutdown(socket.SHUT_WR)
            assert len(sock.recv(1 << 16)) < 1 << 16
        try:
            log = process.stderr.read()
            status = process.wait(60)
        finally:
            process.kill()
    assert "Traceback" not in log
    assert status == 0
    assert ("version 80" in log) == words.startswith(b"PRI")
    assert not list(Path(os.environ["TMPDIR"]).iterdir())
