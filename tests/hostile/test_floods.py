"""Floods of frames, from a client to a server and the other way round."""

from __future__ import annotations

from contextlib import suppress

import anyio
import h2.connection
import h2.events
import hpack
import pytest
from anyio import lowlevel
from anyio.abc import SocketStream
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from pyvider_rpcplugin.rpc import Channel, ConnectionLost, open_channel
from pyvider_rpcplugin.transport import TCPSocketTransport
from tests.http2.peer import REQUEST_BLOCK
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import ScriptedPeer

from .support import field, until_calmed, warnings_in

pytestmark = pytest.mark.net


def repeated(*frames: Frame, times: int = 1100) -> bytes:
    return b"".join(frame.serialize() for frame in frames) * times


def rapid_resets(times: int = 12_000) -> bytes:
    flood = []
    for number in range(1, 2 * times, 2):
        flood += [
            HeadersFrame(number, REQUEST_BLOCK, flags=["END_HEADERS"]).serialize(),
            RstStreamFrame(number, 8).serialize(),
        ]
    return b"".join(flood)


def bomb() -> bytes:
    block = hpack.Encoder().encode([("bomb", "x" * 4000)]) + b"\xbe" * 10_000
    return HeadersFrame(1, block, flags=["END_HEADERS"]).serialize()


# Each with a word that the GOAWAY has.
FLOODS = {
    "PING": (repeated(PingFrame(0, bytes(8))), "PING"),
    "SETTINGS": (repeated(SettingsFrame(0)), "SETTINGS"),
    "many settings": (b"\0\x03\x06\4\0\0\0\0\0" + b"\0\x0a\0\0\0\1" * 129, "129 settings"),
    "PRIORITY": (repeated(PriorityFrame(1, depends_on=0, stream_weight=1)), "PRIORITY"),
    "WINDOW_UPDATE": (repeated(WindowUpdateFrame(0, 1)), "WINDOW_UPDATE"),
    "unknown": (b"\0\0\0\x63\0\0\0\0\0" * 1100, "unknown"),
    "CONTINUATION": (
        HeadersFrame(1, b"").serialize() + repeated(ContinuationFrame(1, b""), times=30),
        "header block",
    ),
    "endless header block": (
        HeadersFrame(1, bytes(16_000)).serialize()
        + repeated(ContinuationFrame(1, bytes(16_000)), times=10),
        "header block",
    ),
    "HPACK bomb": (bomb(), "header list"),
    "table updates": (
        HeadersFrame(1, b"\x20" * 10_000, flags=["END_HEADERS"]).serialize(),
        "updates of the header table",
    ),
}
FROM_CLIENTS = {
    "rapid reset": (rapid_resets(), "reset"),
    "empty DATA": (
        HeadersFrame(1, REQUEST_BLOCK, flags=["END_HEADERS"]).serialize()
        + repeated(DataFrame(1, b"")),
        "empty DATA",
    ),
}


async def send_all(peer: ScriptedPeer, flood: bytes) -> None:
    # The other side may have closed before all of it was sent.
    with suppress(anyio.BrokenResourceError):
        await peer.stream.send(flood)


@pytest.mark.parametrize("name", [*FLOODS, *FROM_CLIENTS])
async def test_client_that_floods_is_calmed_and_no_other_notices(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    flood, word = {**FLOODS, **FROM_CLIENTS}[name]
    async with field() as here, here.speaker() as peer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_all, peer, flood)
            assert word in await until_calmed(peer)
        await here.check_undisturbed()
        while len(here.server._connections) > 1:
            await lowlevel.checkpoint()
    [line] = warnings_in(caplog)
    assert "ENHANCE_YOUR_CALM" in line


@pytest.mark.parametrize("link", ["unix", "tcp"])
async def test_client_that_speaks_something_else_is_dropped_at_once(link: str) -> None:
    async with field(link=link) as here:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(500), bytes(70_000)):
            async with here.attacker() as stream:
                with suppress(anyio.BrokenResourceError):
                    await stream.send(words)
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await stream.receive()
        await here.check_undisturbed()


class HostileServer:
    """Answers each call with a flood; by `h2` and sockets of anyio's."""

    def __init__(self, flood: bytes) -> None:
        self._flood = flood
        self.reasons: list[str] = []

    async def handle(self, stream: SocketStream) -> None:
        async with stream:
            peer = ScriptedPeer(stream, client_side=False)
            await peer.start()
            with suppress(AssertionError):  # The client has left in peace.
                await peer.until(h2.events.RequestReceived)
                await send_all(peer, self._flood)
                self.reasons.append(await until_calmed(peer))


@pytest.mark.parametrize("name", [*FLOODS, "informational"])
async def test_plugin_that_floods_is_calmed_and_another_plugin_of_the_host_answers(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    floods = {**FLOODS, "informational": (informational(), "informational")}
    flood, word = floods[name]
    hostile = HostileServer(flood)
    async with field() as here, await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, hostile.handle)
            transport = TCPSocketTransport("127.0.0.1", port)
            async with open_channel(Channel(transport.connect)) as channel:
                for _ in range(2):
                    with anyio.fail_after(5), pytest.raises(ConnectionLost, match="protocol"):
                        await EchoStub(channel).Unary(EchoRequest())
                    await here.check_undisturbed()
            while len(hostile.reasons) < 2:
                await lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert all(word in reason for reason in hostile.reasons)
    assert len(warnings_in(caplog)) == 2


def informational() -> bytes:
    block = hpack.Encoder().encode([(":status", "103")])
    return repeated(HeadersFrame(1, block, flags=["END_HEADERS"]))
