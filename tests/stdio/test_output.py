"""What a plugin prints reaches its host, and no print waits for a host that does not listen."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.services import StdioChannel, receive_output
from pyvider_rpcplugin.services._messages import Empty
from pyvider_rpcplugin.services._output import MOST
from pyvider_rpcplugin.services._stdio_messages import StdioData
from pyvider_rpcplugin.services.stdio import STREAM_STDIO
from tests.plugins import talking
from tests.plugins.misc_plugin import ask
from tests.server.test_plugin_process import Started

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process


@pytest.fixture
def loop(anyio_backend: Any) -> str:
    """The same loop for the plugin."""
    name: str = anyio_backend[0]
    return name


class Output:
    """A sink that keeps it all, and lets a test wait for the end of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._changed = anyio.Event()

    def __call__(self, data: bytes) -> None:
        self.data += data
        self._changed.set()

    async def wait(self, end: bytes) -> None:
        with anyio.fail_after(10):
            while not self.data.endswith(end):
                self._changed = anyio.Event()
                await self._changed.wait()


async def test_all_ways_to_print_arrive_in_order_while_it_runs(loop: str) -> None:
    out, err = Output(), Output()
    async with plugin_client(talking(loop), sync_stdout=out, sync_stderr=err) as client:
        await ask(client.grpc_channel, "many-ways")
        await out.wait(b"one\ntwo\nthree\nfour\nfive\n")
        await ask(client.grpc_channel, "complain café")
        await err.wait("café\n".encode())
        assert await ask(client.grpc_channel, "streams") == '{"fileno": 2, "tty": false}'
    assert out.data == b"one\ntwo\nthree\nfour\nfive\nafter serving\n"
    assert err.data == "café\n".encode()


async def test_threads_do_not_tear_each_others_lines(loop: str) -> None:
    out = Output()
    async with plugin_client(talking(loop), sync_stdout=out) as client:
        await ask(client.grpc_channel, "threads 8")
    lines = out.data.decode().splitlines()
    assert lines.pop() == "after serving"
    for name in range(8):
        mine = [line for line in lines if line.startswith(f"{name} ")]
        assert mine == [f"{name} {number}" for number in range(100)]
    assert len(lines) == 800


@pytest.mark.parametrize("way", ["flood", "flood-in-thread", "flood-by-child", "flood-stderr"])
async def test_eight_mebibytes_arrive_while_calls_go_on(loop: str, way: str) -> None:
    size = 8 << 20
    out, err = Output(), Output()
    async with plugin_client(talking(loop), sync_stdout=out, sync_stderr=err) as client:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tg:

                async def go_on() -> None:
                    while True:
                        await ask(client.grpc_channel, "nothing")

                tg.start_soon(go_on)
                await ask(client.grpc_channel, f"{way} {size}")
                tg.cancel_scope.cancel()
    if way == "flood-stderr":
        assert err.data == b"x" * (size // 1023 * 1023)
    elif way == "flood-by-child":
        assert out.data == b"x" * (size // 1023 * 1023) + b"after serving\n"
    else:
        numbers = [int(line[:9]) for line in out.data.splitlines() if line != b"after serving"]
        assert numbers == list(range(size // 1024))


async def test_who_prints_faster_than_the_host_takes_is_slowed_down(loop: str) -> None:
    size = 48 << 20
    found = 0
    at_end = anyio.Event()

    async def take(data: bytes) -> None:
        nonlocal found
        found += len(data)
        if data.endswith(b"end\n"):
            at_end.set()
        await anyio.sleep(0.0002)

    with anyio.fail_after(25):
        async with plugin_client(talking(loop), sync_stdout=take) as client:
            await ask(client.grpc_channel, f"flood-by-child {size}")
            await ask(client.grpc_channel, "say end")
            await at_end.wait()
            assert found == size // 1023 * 1023 + len(b"end\n")


async def test_it_is_asked_for_again_when_only_the_connection_was_lost(loop: str) -> None:
    out = Output()
    async with plugin_client(talking(loop), sync_stdout=out) as client:
        await ask(client.grpc_channel, "say one")
        await out.wait(b"one\n")
        channel: Any = client.grpc_channel
        for connection in list(channel._connections):
            await anyio.aclose_forcefully(connection.stream)
        with pytest.raises(GRPCError):
            await ask(channel, "nothing")
        await ask(channel, "say two")
        await out.wait(b"two\n")
    assert out.data == b"one\ntwo\nafter serving\n"


async def test_what_is_printed_just_before_the_end_arrives(loop: str) -> None:
    for _ in range(5):
        out, err = Output(), Output()
        async with plugin_client(talking(loop), sync_stdout=out, sync_stderr=err) as client:
            await ask(client.grpc_channel, "say last")
            await ask(client.grpc_channel, "complain words")
        assert out.data == b"last\nafter serving\n"
        assert err.data == b"words\n"


@pytest.fixture
def unheard(loop: str) -> Iterator[Started]:
    """A plugin whose host never asks for what it prints."""
    with Started(talking(loop)) as plugin:
        yield plugin
        plugin.process.terminate()
        plugin.process.wait(timeout=50)


async def test_no_print_waits_where_nobody_listens(unheard: Started) -> None:
    with anyio.fail_after(20):
        async with plugin_client(address=unheard.address) as client:
            for way in ("flood", "flood-in-thread", "flood-stderr"):
                await ask(client.grpc_channel, f"{way} {24 << 20}")
            # The newest of it is there for who asks late, with a word about the rest.
            found = {channel: bytearray() for channel in StdioChannel}

            async def take(channel: StdioChannel, data: bytes) -> None:
                found[channel] += data

            async with anyio.create_task_group() as tg:
                tg.start_soon(receive_output, client.grpc_channel, take)
                await ask(client.grpc_channel, "say end")
                while not found[StdioChannel.STDOUT].endswith(b"end\n"):
                    await anyio.lowlevel.checkpoint()
                tg.cancel_scope.cancel()
    assert MOST - (1 << 20) < len(found[StdioChannel.STDOUT]) <= MOST + 4096
    unheard.process.send_signal(signal.SIGTERM)
    status, out, err = unheard.end()
    assert (status, out) == (0, "after serving\n")
    assert re.search(r'"@message":"the host did not listen: \d+ bytes', err)


async def test_a_listener_that_stops_reading_holds_up_nobody(unheard: Started) -> None:
    with anyio.fail_after(20):
        async with plugin_client(address=unheard.address) as client:
            channel: Any = client.grpc_channel
            async with channel.request(
                STREAM_STDIO, Cardinality.UNARY_STREAM, Empty, StdioData
            ) as stream:
                await stream.send_message(Empty(), end=True)
                await ask(channel, "say hello")
                assert await stream.recv_message() == StdioData(1, b"hello\n")
                await ask(channel, f"flood-in-thread {48 << 20}")
                await ask(channel, f"flood {24 << 20}")
                await ask(channel, f"flood-stderr {24 << 20}")
                await stream.cancel()
        unheard.process.send_signal(signal.SIGTERM)
        assert unheard.end()[0] == 0


async def test_a_new_listener_takes_the_place_of_the_old_one(unheard: Started) -> None:
    with anyio.fail_after(10):
        async with plugin_client(address=unheard.address) as client:
            channel: Any = client.grpc_channel
            first, second = (
                channel.request(STREAM_STDIO, Cardinality.UNARY_STREAM, Empty, StdioData)
                for _ in range(2)
            )
            async with second:
                with pytest.raises(GRPCError) as caught:
                    async with first:
                        await first.send_message(Empty(), end=True)
                        await ask(channel, "say one")
                        assert await first.recv_message() == StdioData(1, b"one\n")
                        await second.send_message(Empty(), end=True)
                        await first.recv_message()
                assert caught.value.status is Status.CANCELLED
                await ask(channel, "say two")
                assert await second.recv_message() == StdioData(1, b"two\n")
                await second.cancel()


async def test_a_host_that_goes_away_leaves_the_output_for_the_next(unheard: Started) -> None:
    with anyio.fail_after(10):
        async with plugin_client(address=unheard.address) as client:
            channel: Any = client.grpc_channel
            async with channel.request(
                STREAM_STDIO, Cardinality.UNARY_STREAM, Empty, StdioData
            ) as stream:
                await stream.send_message(Empty(), end=True)
                await ask(channel, "say one")
                await stream.recv_message()
                await stream.cancel()
        async with plugin_client(address=unheard.address) as client:
            await ask(client.grpc_channel, "say two")
            found = bytearray()

            async def take(channel: StdioChannel, data: bytes) -> None:
                found.extend(data)
                tg.cancel_scope.cancel()

            async with anyio.create_task_group() as tg:
                tg.start_soon(receive_output, client.grpc_channel, take)
    assert found == b"two\n"


def test_messages_are_what_protobuf_makes_of_them() -> None:
    for message, encoded in [
        (StdioData(1, b"ab"), b"\x08\x01\x12\x02ab"),
        (StdioData(2), b"\x08\x02"),
        (StdioData(), b""),
    ]:
        assert message.SerializeToString() == encoded
        assert StdioData.FromString(encoded) == message
    assert StdioData.FromString(b"\x18\x05\x08\x07") == StdioData(7)
    assert StdioData.FromString(b"\x0a\x01x\x10\x05") == StdioData()
