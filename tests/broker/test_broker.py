"""Two brokers over a connection in memory: times, and other sides that misbehave."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import h2.events
import pytest
import trio.testing
from anyio import lowlevel
from grpclib.const import Cardinality, Handler
from h2.settings import SettingCodes

from pyvider_rpcplugin import ProtocolError, RPCPluginError, TransportError
from pyvider_rpcplugin._tasks import unwrapped
from pyvider_rpcplugin.rpc import Channel, RPCOptions, Server, open_channel
from pyvider_rpcplugin.services import Broker
from pyvider_rpcplugin.services._mailboxes import MOST_ANNOUNCED, WINDOW
from pyvider_rpcplugin.services._messages import ConnInfo
from pyvider_rpcplugin.services.broker import _MOST_UNREAD
from pyvider_rpcplugin.transport import MemoryTransport
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.rpc.support import Echo, framed, scripted_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATH = "/plugin.GRPCBroker/StartStream"


class MemoryWays:
    """Connections in memory, found by their addresses."""

    networks: tuple[str, ...] = ("memory",)
    announces: bool = True
    say: Any
    scheme: str = "http"

    def __init__(self, places: dict[str, MemoryTransport]) -> None:
        self._places = places

    @asynccontextmanager
    async def listen(self, service_id: int) -> AsyncIterator[Any]:
        transport = MemoryTransport()
        async with transport.listen() as listener:
            self._places[listener.address] = transport
            yield ConnInfo(service_id, "memory", listener.address), listener

    async def connect(self, info: ConnInfo) -> Any:
        if info.address not in self._places:
            msg = f"nobody is at {info.address}"
            raise TransportError(msg)
        return await self._places[info.address].connect()

    def hear(self, info: ConnInfo) -> bool:
        return False


def make_broker(peer: str, places: dict[str, MemoryTransport]) -> Broker:
    options = RPCOptions()
    ways = MemoryWays(places)
    return Broker(ways, peer=peer, options=options, grace=0.1, connection_timeout=5)


class Pair:
    """A host's broker, a plugin's, and the channel between."""

    def __init__(self) -> None:
        self.places: dict[str, MemoryTransport] = {}
        self.host = make_broker("plugin", self.places)
        self.plugin = make_broker("host", self.places)
        self.channel: Channel


@asynccontextmanager
async def paired(*, served: Any = None, talk: bool = True) -> AsyncIterator[Pair]:
    """A pair, or a host alone whose plugin serves something else."""
    pair = Pair()
    transport = MemoryTransport()
    server = Server([pair.plugin if served is None else served])
    with unwrapped():
        async with transport.listen() as listener, anyio.create_task_group() as tg:
            await tg.start(server.serve, listener)
            await tg.start(pair.plugin.run)
            await tg.start(pair.host.run)

            async def connect():
                return await transport.connect()

            async with open_channel(Channel(connect)) as pair.channel:
                if talk:
                    tg.start_soon(pair.host.keep_conversation, pair.channel)
                yield pair
                await pair.plugin.stop("is closing")
                pair.host.close()
                pair.plugin.close()
                await server.stop(0)
                tg.cancel_scope.cancel()


async def reach(broker: Broker, number: int, **options: Any) -> str:
    async with broker.dial(number, **options) as channel:
        return (await EchoStub(channel).Unary(EchoRequest(text="x"))).text


async def test_both_sides_serve_and_dial() -> None:
    with anyio.fail_after(5):
        async with paired() as pair:
            for one, other in ((pair.host, pair.plugin), (pair.plugin, pair.host)):
                async with one.serve(Echo()) as number:
                    assert await reach(other, number) == "x"


def test_what_nobody_dials_in_time_cannot_be_dialled_later() -> None:
    async def main() -> None:
        async with paired() as pair, pair.host.serve(Echo()) as number:
            while len(pair.plugin._boxes) == 0:
                await lowlevel.checkpoint()
            await anyio.sleep(WINDOW + 0.1)
            began = anyio.current_time()
            with pytest.raises(TransportError, match=f"host announced no service {number} within"):
                await reach(pair.plugin, number)
            assert anyio.current_time() - began == pytest.approx(WINDOW)
            # The service itself is there for another one that is announced.
            async with pair.host.serve(Echo()) as later:
                assert await reach(pair.plugin, later) == "x"

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


def test_what_was_started_serves_until_the_other_side_has_left() -> None:
    async def main() -> None:
        async with paired() as pair:
            number = await pair.plugin.start_serving(Echo())
            async with pair.host.dial(number) as channel:
                await anyio.sleep(10 * WINDOW)
                assert (await EchoStub(channel).Unary(EchoRequest(text="x"))).text == "x"
            await anyio.sleep(WINDOW - 0.1)
            assert pair.plugin._services
            await anyio.sleep(0.3)
            assert not pair.plugin._services
            await pair.plugin.start_serving(Echo())
            assert len(pair.plugin._services) == 1
            await anyio.sleep(WINDOW + 0.3)
            assert not pair.plugin._services

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


def test_a_dial_may_come_before_the_service() -> None:
    async def main() -> None:
        async with paired() as pair, anyio.create_task_group() as tg:
            heard = anyio.Event()

            async def dial() -> None:
                assert await reach(pair.plugin, 1) == "x"
                heard.set()

            tg.start_soon(dial)
            await anyio.sleep(WINDOW - 0.5)
            async with pair.host.serve(Echo()):
                await heard.wait()

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


def test_a_host_without_a_broker_stream_is_an_error_that_says_so() -> None:
    async def main() -> None:
        async with paired(talk=False) as pair:
            with pytest.raises(TransportError, match="host has opened no broker stream") as caught:
                await reach(pair.plugin, 1)
            assert caught.value.hint is not None
            with pytest.raises(TransportError, match="host has opened no broker stream"):
                async with pair.plugin.serve(Echo()):
                    pass

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


async def test_a_plugin_without_a_broker_is_an_error_at_once() -> None:
    with anyio.fail_after(5):
        async with paired(served=Echo()) as pair:
            with pytest.raises(TransportError, match="does not exist"):
                await reach(pair.host, 1)
            with pytest.raises(TransportError, match="does not exist"):
                async with pair.host.serve(Echo()):
                    pass


class Hostile:
    """A plugin whose broker sends what the test says."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = messages

    def __mapping__(self) -> dict[str, Handler]:
        handler = Handler(self._start, Cardinality.STREAM_STREAM, ConnInfo, Raw)
        return {PATH: handler}

    async def _start(self, stream: Any) -> None:
        for message in self._messages:
            await stream.send_message(Raw(message))
        while await stream.recv_message() is not None:
            pass


class Raw:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


def info(number: int, network: str = "memory", address: str = "nowhere") -> bytes:
    return ConnInfo(number, network, address).SerializeToString()


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        (b"\xff\xff\xff", "no ConnInfo"),
        (b"\x12\x02\xff\xfe", "no ConnInfo"),
        (info(1, "carrier pigeon"), "carrier pigeon"),
        (info(1, address=""), "no address"),
    ],
)
async def test_a_message_that_cannot_be_used_is_logged_and_does_no_harm(
    message: bytes, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    with anyio.fail_after(5):
        async with paired(served=Hostile(message, info(9))) as pair:
            # What came after it was heard: there is such an announcement, if a useless one.
            with pytest.raises(TransportError, match="nobody is at nowhere"):
                await reach(pair.host, 9)
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert logged in errors[0]
    assert "plugin" in errors[0]


async def test_a_dial_to_an_address_of_no_use_says_why() -> None:
    with anyio.fail_after(5):
        async with paired(served=Hostile(info(1, "carrier pigeon"))) as pair:
            with pytest.raises(TransportError, match="carrier pigeon"):
                await reach(pair.host, 1)


async def test_a_flood_of_announcements_is_bounded_and_logged_a_few_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = MOST_ANNOUNCED + 500
    with anyio.fail_after(20):
        async with paired(served=Hostile(*(info(n) for n in range(1, count)), b"\xff")) as pair:
            with pytest.raises(TransportError, match="nobody is at nowhere"):
                await reach(pair.host, MOST_ANNOUNCED)
            while pair.host._complaints < 20:
                await lowlevel.checkpoint()
            assert len(pair.host._boxes) <= MOST_ANNOUNCED
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 20
    assert "last one" in errors[-1]


class Answering(MemoryWays):
    """Has an answer to each message, as where knocks are answered."""

    def hear(self, info: ConnInfo) -> bool:
        self.say(info)
        return True


async def test_a_peer_that_reads_no_answers_is_not_listened_to() -> None:
    broker = Broker(
        Answering({}), peer="host", options=RPCOptions(), grace=0.1, connection_timeout=5
    )
    server = Server([broker])
    async with scripted_client(server=server, initial_window_size=0) as (_, peer):
        await peer.until(h2.events.RemoteSettingsChanged)
        stream_id = await peer.request("", end=False, fields={":path": PATH})
        knock = framed(info(7))
        for _ in range(60):
            peer.h2.send_data(stream_id, knock * 50)
            await peer.send()
        await anyio.wait_all_tasks_blocked()
        assert len(broker._outgoing) == _MOST_UNREAD + 1
        # It reads: so it is heard, all of it.
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        peer.h2.increment_flow_control_window(1 << 20)
        await peer.send()
        received = 0
        while received < 3000 * len(knock):
            event = await peer.until(h2.events.DataReceived)
            received += len(event.data or b"")
        assert not broker._outgoing


async def test_a_new_control_stream_takes_the_place_of_the_old_one() -> None:
    with anyio.fail_after(5):
        async with paired(talk=False) as pair, anyio.create_task_group() as tg:
            first, second = make_broker("plugin", pair.places), make_broker("plugin", pair.places)
            await tg.start(first.run)
            tg.start_soon(first.keep_conversation, pair.channel)
            async with pair.plugin.serve(Echo()) as number:
                assert await reach(first, number) == "x"
                first.refuse("is forgotten")
                await tg.start(second.run)
                tg.start_soon(second.keep_conversation, pair.channel)
                while second._conversation is None:
                    await lowlevel.checkpoint()
                while pair.plugin._conversation is None:
                    await lowlevel.checkpoint()
                async with pair.plugin.serve(Echo()) as again:
                    assert await reach(second, again) == "x"
                async with second.serve(Echo()) as back:
                    assert await reach(pair.plugin, back) == "x"
            first.close()
            second.close()
            tg.cancel_scope.cancel()


async def test_the_end_of_the_broker_ends_all_that_it_made() -> None:
    with anyio.fail_after(5):
        async with paired() as pair, pair.host.serve(Echo()) as number:
            async with pair.plugin.dial(number) as channel:
                pair.plugin.close()
                while not channel._closed:
                    await lowlevel.checkpoint()
            pair.host.close()
            while pair.host._tasks is not None:
                await lowlevel.checkpoint()
            with pytest.raises(TransportError, match="closed"):
                await reach(pair.host, 1)
            with pytest.raises(TransportError, match="closed"):
                async with pair.host.serve(Echo()):
                    pass


async def test_a_service_may_live_as_long_as_the_broker() -> None:
    with anyio.fail_after(5):
        async with paired() as pair:
            with anyio.move_on_after(5) as scope:
                number = await pair.plugin.start_serving(Echo())
                # What began it has come to its end, and so may the task that did.
                scope.cancel()
                await lowlevel.checkpoint()
            assert await reach(pair.host, number) == "x"
            assert len(pair.plugin._services) == 1
            await pair.plugin.stop("is closing")
            assert not pair.plugin._services
            with pytest.raises(TransportError, match="is closing"):
                await pair.plugin.start_serving(Echo())


async def test_waiting_dials_end_with_the_broker() -> None:
    with anyio.fail_after(5):
        async with paired() as pair, anyio.create_task_group() as tg:

            async def dial() -> None:
                with pytest.raises(TransportError, match="is closing"):
                    await reach(pair.host, 1, timeout=60)

            tg.start_soon(dial)
            await anyio.wait_all_tasks_blocked()
            await pair.host.stop("is closing")


class Nothing:
    pass


async def test_what_cannot_be_served_is_an_error() -> None:
    with anyio.fail_after(5):
        async with paired() as pair:
            with pytest.raises(ProtocolError, match="no __mapping__"):
                nothing: Any = Nothing()
                async with pair.host.serve(nothing):
                    pass


@pytest.mark.parametrize("racing", [False, True])
async def test_serving_and_dialling_can_be_cancelled_anywhere(racing: bool) -> None:
    from tests.rpc.test_cancellation import sweep

    with anyio.fail_after(25):
        async with paired() as pair:

            async def both() -> None:
                async with pair.host.serve(Echo()) as number:
                    assert await reach(pair.plugin, number) == "x"

            async def check() -> None:
                assert not pair.host._services
                await both()

            assert await sweep(both, check, racing=racing) > 5


async def test_a_broker_that_does_not_run_says_so() -> None:
    with pytest.raises(RPCPluginError, match="not running"):
        await reach(make_broker("host", {}), 1)
