"""What the tests of the engine share: a service, connections to it, and scripted peers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from anyio import lowlevel
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.transport import (
    MemoryTransport,
    RPCPluginTransport,
    TCPSocketTransport,
    UnixSocketTransport,
    transport_for,
)
from pyvider_rpcplugin.transport.memory import MemoryStream
from tests.protos.echo_grpc import EchoBase, EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from anyio.abc import ByteStream

    from pyvider_rpcplugin.rpc import ClientStream
    from pyvider_rpcplugin.rpc._connection import RPCConnection

EventT = TypeVar("EventT", bound=h2.events.Event)

LINKS: dict[str, Callable[[], RPCPluginTransport]] = {
    "memory": MemoryTransport,
    "unix": UnixSocketTransport,
    "tcp": TCPSocketTransport,
}
UNARY = "/testing.echo.Echo/Unary"
KINDS = {
    "Unary": Cardinality.UNARY_UNARY,
    "ServerStream": Cardinality.UNARY_STREAM,
    "ClientStream": Cardinality.STREAM_UNARY,
    "Bidi": Cardinality.STREAM_STREAM,
}


class Echo(EchoBase):
    """The echo service; each method may be replaced by a keyword."""

    def __init__(self, **handlers: Callable[[Any], Awaitable[None]]) -> None:
        for name, handler in handlers.items():
            assert name in KINDS
            setattr(self, name, handler)

    async def Unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(EchoReply(data=request.data, text=request.text))

    async def ServerStream(self, stream: Any) -> None:
        request = await stream.recv_message()
        for index in range(request.count):
            await stream.send_message(EchoReply(data=request.data, text=request.text, index=index))

    async def ClientStream(self, stream: Any) -> None:
        requests = [request async for request in stream]
        data = b"".join(request.data for request in requests)
        text = "".join(request.text for request in requests)
        await stream.send_message(EchoReply(data=data, text=text, index=len(requests)))

    async def Bidi(self, stream: Any) -> None:
        index = 0
        async for request in stream:
            await stream.send_message(EchoReply(data=request.data, text=request.text, index=index))
            index += 1


def request(channel: Channel, method: str, **options: Any) -> ClientStream[Any, Any]:
    """A call of the echo service, as a stub's `open` makes it."""
    return channel.request(
        f"/testing.echo.Echo/{method}", KINDS[method], EchoRequest, EchoReply, **options
    )


class Linked:
    """A channel and the server that it is connected to."""

    def __init__(self, channel: Channel, server: Server) -> None:
        self.channel = channel
        self.server = server
        self.stub = EchoStub(channel)

    @property
    def connections(self) -> list[RPCConnection]:
        """Both ends of all connections."""
        served = [one._connection for one in self.server._connections]
        return [*self.channel._connections, *served]

    async def check_nothing_is_left(self) -> None:
        """Check that another call works, and that no call has left a trace in the connections."""
        with anyio.fail_after(5):
            with pytest.raises(GRPCError) as caught:
                await UnaryUnaryMethod(self.channel, "/any/None", EchoRequest, EchoReply)(
                    EchoRequest()
                )
            assert caught.value.status is Status.UNIMPLEMENTED
            while any(one._calls for one in self.server._connections):
                await lowlevel.checkpoint()
        # A call may have ended by the caller's last word: the peer's is on its way then.
        with anyio.move_on_after(5):
            while any(one.h2.streams for one in self.connections):
                await lowlevel.checkpoint()
        assert not self.channel._pending
        for connection in self.connections:
            h2 = connection.h2
            assert not h2.streams
            assert not connection._room_waiters
            assert not connection.early
            full = h2._local.connection_window_size
            assert h2._receive_window + h2._unacknowledged == full


@asynccontextmanager
async def linked(
    service: Any = None,
    *,
    link: str = "memory",
    server: Server | None = None,
    channel_options: RPCOptions | None = None,
    server_options: RPCOptions | None = None,
    limit: float = 20,
    **channel_arguments: Any,
) -> AsyncIterator[Linked]:
    """A server and a channel to it, for the length of a block."""
    transport = LINKS[link]()
    served = server or Server([service or Echo()], options=server_options)
    with anyio.fail_after(limit), unwrapped():
        async with transport.listen() as listener, anyio.create_task_group() as tasks:
            await tasks.start(served.serve, listener)
            client = transport if link == "memory" else transport_for(link, listener.address)

            async def connect() -> ByteStream:
                stream: ByteStream = await client.connect()
                return stream

            channel = Channel(connect, options=channel_options, **channel_arguments)
            async with open_channel(channel):
                yield Linked(channel, served)
            await served.stop(0)


class ScriptedPeer:
    """One end of a connection that does what the test says, by `h2` rather than by our own code.

    Args:
        stream: What connects it with the code under test.
        client_side: Which side the peer is.
        chop: Whether it sends one octet at a time.
    """

    def __init__(self, stream: ByteStream, *, client_side: bool, chop: bool = False) -> None:
        config = h2.config.H2Configuration(
            client_side=client_side,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.stream = stream
        self.events: list[h2.events.Event] = []
        self.ended = False
        self._chop = chop

    async def send(self, data: bytes | None = None) -> None:
        """Send what `h2` has queued, or these octets."""
        data = self.h2.data_to_send() if data is None else data
        if self._chop:
            for octet in data:
                await self.stream.send(bytes([octet]))
        elif data:
            await self.stream.send(data)

    async def start(self, **settings: int) -> None:
        """Send the preface, with these settings."""
        if settings:
            values = {h2.settings.SettingCodes[name.upper()]: v for name, v in settings.items()}
            self.h2.local_settings = h2.settings.Settings(
                client=self.h2.config.client_side, initial_values=values
            )
        self.h2.initiate_connection()
        await self.send()

    async def receive(self) -> None:
        """Take in what comes next."""
        try:
            data = await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self.ended = True
            return
        self.events += self.h2.receive_data(data)
        await self.send()

    async def until(self, kind: type[EventT]) -> EventT:
        """Wait for the next event of this kind; those before it are dropped."""
        with anyio.fail_after(5):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if isinstance(event, kind):
                        return event
                assert not self.ended, f"the connection ended before {kind.__name__}"
                await self.receive()

    async def until_end(self) -> None:
        """Wait until the other side has closed the connection."""
        with anyio.fail_after(5):
            while not self.ended:
                await self.receive()

    async def request(
        self,
        method: str = "Unary",
        body: bytes = b"",
        *,
        end: bool = True,
        fields: dict[str, str] | None = None,
    ) -> int:
        """As a client: begin a call."""
        stream_id = self.h2.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/testing.echo.Echo/{method}",
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        headers.update(fields or {})
        self.h2.send_headers(stream_id, list(headers.items()), end_stream=end and not body)
        if body:
            self.h2.send_data(stream_id, body, end_stream=end)
        await self.send()
        return stream_id

    async def respond(
        self,
        stream_id: int,
        body: bytes = b"",
        trailers: list[tuple[str, str]] | None = None,
        headers: list[tuple[str, str]] | None = None,
        *,
        end: bool = False,
    ) -> None:
        """As a server: send headers, content and trailers."""
        self.h2.send_headers(stream_id, headers or RESPONSE, end_stream=end)
        if body:
            self.h2.send_data(stream_id, body)
        if trailers is not None:
            self.h2.send_headers(stream_id, trailers, end_stream=True)
        await self.send()


RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


def message(text: str = "", *, data: bytes = b"", flag: int = 0) -> bytes:
    """An echo message, length-prefixed. Requests and replies look the same."""
    return framed(EchoRequest(text=text, data=data).SerializeToString(), flag=flag)


def framed(content: bytes, *, flag: int = 0) -> bytes:
    """These octets, length-prefixed."""
    return bytes([flag]) + len(content).to_bytes(4, "big") + content


@asynccontextmanager
async def scripted_server(
    *, chop: bool = False, options: RPCOptions | None = None, **settings: int
) -> AsyncIterator[tuple[Channel, ScriptedPeer]]:
    """A channel whose server is scripted; the preface has been exchanged."""
    ours, theirs = MemoryStream.pair()
    peer = ScriptedPeer(theirs, client_side=False, chop=chop)
    streams = [ours]

    async def connect() -> ByteStream:
        return streams.pop()

    channel = Channel(connect, options=options)
    await peer.start(**settings)
    with anyio.fail_after(10):
        async with open_channel(channel), theirs:
            yield channel, peer


@asynccontextmanager
async def scripted_client(
    service: Any = None, *, chop: bool = False, server: Server | None = None, **settings: int
) -> AsyncIterator[tuple[Server, ScriptedPeer]]:
    """A server whose client is scripted; the preface has been exchanged."""
    ours, theirs = MemoryStream.pair()
    peer = ScriptedPeer(theirs, client_side=True, chop=chop)
    server = server or Server([service or Echo()])
    with anyio.fail_after(10), unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve_stream, ours)
            await peer.start(**settings)
            async with theirs:
                yield server, peer
