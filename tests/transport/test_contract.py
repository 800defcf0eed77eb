"""What every transport does alike, tried on each of them, and against foreign peers."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import anyio
import pytest
from anyio.abc import SocketAttribute

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport import (
    MemoryTransport,
    RPCPluginTransport,
    SocketStream,
    TCPSocketTransport,
    UnixSocketTransport,
    transport_for,
)

pytestmark = pytest.mark.net


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


SOCKETS = [
    pytest.param(TCPSocketTransport, id="tcp"),
    pytest.param(
        lambda: TCPSocketTransport("::1"),
        id="tcp6",
        marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
    ),
    pytest.param(lambda: TCPSocketTransport("localhost"), id="localhost"),
    pytest.param(UnixSocketTransport, id="unix"),
]
ALL = [*SOCKETS, pytest.param(MemoryTransport, id="memory")]

any_transport = pytest.mark.parametrize("make", ALL)
socket_transport = pytest.mark.parametrize("make", SOCKETS)


def connector(transport: RPCPluginTransport) -> RPCPluginTransport:
    """What a host makes of the address that it was told."""
    return transport_for(transport.network, transport.address)


class Pair:
    """Two connected streams, both ours."""

    def __init__(self, make) -> None:
        self.transport = make()

    async def __aenter__(self):
        self.listening = self.transport.listen()
        listener = await self.listening.__aenter__()
        self.ours = await connector(self.transport).connect()
        self.theirs = await listener.accept()
        return self.ours, self.theirs

    async def __aexit__(self, *exc_info):
        await self.ours.aclose()
        await self.theirs.aclose()
        await self.listening.__aexit__(*exc_info)


async def receive_exactly(stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive()
    return data


async def echo(stream) -> None:
    with suppress(anyio.BrokenResourceError):
        async for data in stream:
            await stream.send(data)


async def some_turns() -> None:
    """Let the loop look at its sockets, and do what comes of it."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def fill(stream) -> int:
    """Send until the socket takes no more."""
    sent = 0
    while taken := stream.send_nowait(b"x" * 65536):
        sent += taken
    return sent


# Listening


@any_transport
async def test_the_address_exists_while_it_listens(make):
    transport = make()
    with pytest.raises(TransportError):
        _ = transport.address
    async with transport.listen() as listener:
        assert transport.address == listener.address != ""
    with pytest.raises(TransportError):
        _ = transport.address


@any_transport
async def test_a_transport_listens_once_at_a_time_and_again_afterwards(make):
    transport = make()
    for _ in range(2):
        async with transport.listen():
            with pytest.raises(TransportError, match="already listens"):
                async with transport.listen():
                    pytest.fail("it listens twice")
            assert transport.address


@any_transport
async def test_serve_hands_every_connection_to_the_handler(make):
    transport = make()
    async with transport.listen() as listener, anyio.create_task_group() as task_group:
        task_group.start_soon(listener.serve, echo)
        with anyio.fail_after(5):
            for n in range(3):
                async with connector(transport).connect() as stream:
                    await stream.send(b"ping %d" % n)
                    assert await receive_exactly(stream, 6) == b"ping %d" % n
        task_group.cancel_scope.cancel()


@any_transport
async def test_serve_closes_what_the_handler_leaves_open(make):
    transport = make()

    async def handler(stream) -> None:
        assert await stream.receive() == b"x"

    async with transport.listen() as listener, anyio.create_task_group() as task_group:
        task_group.start_soon(listener.serve, handler)
        with anyio.fail_after(5):
            async with connector(transport).connect() as stream:
                await stream.send(b"x")
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
        task_group.cancel_scope.cancel()


@any_transport
async def test_handlers_live_in_the_task_group_that_is_given(make):
    transport = make()
    async with anyio.create_task_group() as handlers:
        async with transport.listen() as listener, anyio.create_task_group() as accepting:
            accepting.start_soon(listener.serve, echo, handlers)
            with anyio.fail_after(5):
                stream = await connector(transport).connect()
                await stream.send(b"one")
                assert await receive_exactly(stream, 3) == b"one"
            accepting.cancel_scope.cancel()
        with anyio.fail_after(5):
            await stream.send(b"two")
            assert await receive_exactly(stream, 3) == b"two"
            await stream.aclose()


@any_transport
async def test_closing_the_listener_wakes_who_accepts(make):
    async with make().listen() as listener:
        async with anyio.create_task_group() as task_group:

            async def accept() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await listener.accept()

            task_group.start_soon(accept)
            await anyio.wait_all_tasks_blocked()
            await listener.aclose()
            await listener.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await listener.accept()


@any_transport
async def test_two_acceptors_are_one_too_many(make):
    async with make().listen() as listener, anyio.create_task_group() as task_group:
        task_group.start_soon(listener.accept)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await listener.accept()
        task_group.cancel_scope.cancel()


@any_transport
async def test_a_cancelled_accept_loses_no_connection(make):
    transport = make()
    async with transport.listen() as listener:
        stream = await connector(transport).connect()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await listener.accept()
        assert scope.cancelled_caught
        with anyio.fail_after(5):
            async with stream, await listener.accept() as accepted:
                await stream.send(b"x")
                assert await accepted.receive() == b"x"


@any_transport
async def test_after_the_block_nobody_can_connect(make):
    transport = make()
    async with transport.listen():
        other = connector(transport)
    with pytest.raises(TransportError) as caught:
        await other.connect()
    assert caught.value.hint


@any_transport
async def test_an_exception_or_a_cancellation_ends_the_block_as_well(make):
    transport = make()
    with pytest.raises(ZeroDivisionError):
        async with transport.listen():
            raise ZeroDivisionError
    with anyio.CancelScope() as scope:
        async with transport.listen():
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with transport.listen():
            await anyio.lowlevel.checkpoint()
    with pytest.raises(TransportError):
        _ = transport.address


# Streams


@any_transport
async def test_bytes_arrive_in_order_in_both_directions_at_once(make):
    data = os.urandom(1 << 20)
    received: dict[str, bytes] = {}

    async def send(stream) -> None:
        for start in range(0, len(data), 100_000):
            await stream.send(data[start : start + 100_000])
        await stream.send_eof()

    async def receive(name, stream) -> None:
        received[name] = b"".join([chunk async for chunk in stream])

    async with Pair(make) as (ours, theirs):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(send, ours)
                task_group.start_soon(send, theirs)
                task_group.start_soon(receive, "ours", ours)
                task_group.start_soon(receive, "theirs", theirs)
    assert received == {"ours": data, "theirs": data}


@socket_transport
@pytest.mark.parametrize("together", [True, False], ids=["together", "one-by-one"])
async def test_pieces_are_sent_as_if_they_were_one(make, together):
    data = os.urandom(1 << 20)
    pieces: list[bytes | memoryview] = [b"head", memoryview(data), b"", data[:300_000]]
    pieces += [b"%d" % n for n in range(200)]
    async with Pair(make) as (ours, theirs):
        if not together:  # as where the system has no call for many
            ours._sendmsg = None
        with anyio.fail_after(5):
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(ours.send_parts, pieces)
                whole = b"".join(pieces)
                assert await receive_exactly(theirs, len(whole)) == whole
            await ours.send_parts([])
            await ours.send(b"afterwards")
            assert await theirs.receive() == b"afterwards"


@any_transport
async def test_no_more_is_received_than_asked_for(make):
    async with Pair(make) as (ours, theirs):
        with anyio.fail_after(5):
            await ours.send(b"abcdef")
            assert [await theirs.receive(2) for _ in range(3)] == [b"ab", b"cd", b"ef"]


@any_transport
async def test_the_end_of_a_stream_comes_after_its_bytes_and_stays(make):
    async with Pair(make) as (ours, theirs):
        await ours.send(b"last")
        await ours.send_eof()
        with anyio.fail_after(5):
            assert await theirs.receive() == b"last"
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await theirs.receive()
            await theirs.send(b"still open")
            assert await ours.receive() == b"still open"


@any_transport
async def test_sending_after_the_end_is_an_error(make):
    async with Pair(make) as (ours, _):
        await ours.send_eof()
        with pytest.raises((anyio.ClosedResourceError, anyio.BrokenResourceError)):
            await ours.send(b"x")


@any_transport
async def test_a_closed_stream_says_so_and_closes_again_quietly(make):
    async with Pair(make) as (ours, _):
        await ours.aclose()
        await ours.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await ours.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await ours.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await ours.send_eof()


@any_transport
async def test_closing_wakes_who_receives_and_who_sends(make):
    async with Pair(make) as (ours, _), anyio.create_task_group() as task_group:

        async def receive() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await ours.receive()

        async def send() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await ours.send(bytes(64 << 20))

        task_group.start_soon(receive)
        task_group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await ours.aclose()


@any_transport
async def test_closing_works_in_a_cancelled_scope(make):
    async with Pair(make) as (ours, theirs):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ours.aclose()
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            await theirs.receive()


@any_transport
async def test_a_peer_that_is_gone_breaks_the_sending(make):
    async with Pair(make) as (ours, theirs):
        await theirs.aclose()
        with anyio.fail_after(5), pytest.raises(anyio.BrokenResourceError):
            while True:
                await ours.send(b"x" * 1000)
                await anyio.lowlevel.checkpoint()


@any_transport
async def test_one_receives_and_one_sends_at_a_time(make):
    async with Pair(make) as (ours, _), anyio.create_task_group() as task_group:
        task_group.start_soon(ours.receive)
        task_group.start_soon(ours.send, bytes(64 << 20))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await ours.receive()
        with pytest.raises(anyio.BusyResourceError):
            await ours.send(b"x")
        with pytest.raises(anyio.BusyResourceError):
            await ours.send_eof()
        task_group.cancel_scope.cancel()


@any_transport
@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_receive_loses_nothing(make, turns):
    got = []

    async def receive() -> None:
        got.append(await theirs.receive())

    async with Pair(make) as (ours, theirs):
        for n in range(1, 10):
            got.clear()
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                await ours.send(b"x" * n)
                # The bytes are somewhere between the kernel and the receiver by now.
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                task_group.cancel_scope.cancel()
            with anyio.fail_after(5):
                rest = await receive_exactly(theirs, n - len(b"".join(got)))
            assert b"".join(got) + rest == b"x" * n


@any_transport
async def test_what_was_read_for_a_cancelled_receive_is_still_given_in_small_parts(make):
    async with Pair(make) as (ours, theirs):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(theirs.receive)
            await anyio.wait_all_tasks_blocked()
            task_group.cancel_scope.cancel()
        await ours.send(b"abcdef")
        await some_turns()
        with anyio.fail_after(5):
            assert [await theirs.receive(4), await theirs.receive(4)] == [b"abcd", b"ef"]


@any_transport
async def test_what_arrives_while_nobody_receives_is_kept_in_order(make):
    async with Pair(make) as (ours, theirs):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(theirs.receive)
            await anyio.wait_all_tasks_blocked()
            task_group.cancel_scope.cancel()
        for part in (b"one ", b"two ", b"three"):
            await ours.send(part)
            await some_turns()
        await ours.send_eof()
        with anyio.fail_after(5):
            assert b"".join([data async for data in theirs]) == b"one two three"


# Sockets alone


@socket_transport
async def test_a_stream_tells_about_its_socket_as_anyio_does(make):
    async with Pair(make) as (ours, theirs):
        raw = ours.extra(SocketAttribute.raw_socket)
        assert isinstance(raw, socket.socket)
        async with anyio.create_task_group():
            reference = await anyio.abc.SocketStream.from_socket(raw.dup())
        async with reference:
            for stream, same in ((ours, True), (theirs, False)):
                for attribute in (
                    SocketAttribute.family,
                    SocketAttribute.local_address,
                    SocketAttribute.local_port,
                    SocketAttribute.remote_address,
                    SocketAttribute.remote_port,
                ):
                    expected = reference.extra(attribute, None)
                    if same or expected is None:
                        assert stream.extra(attribute, None) == expected
        assert ours.extra(SocketAttribute.local_address) == theirs.extra(
            SocketAttribute.remote_address
        )
        assert "fd=" in repr(ours)
    assert "closed" in repr(ours)


@socket_transport
async def test_a_listener_tells_about_its_socket(make):
    async with make().listen() as listener:
        raw = listener.extra(SocketAttribute.raw_socket)
        assert listener.extra(SocketAttribute.family) == raw.family
        assert listener.extra(SocketAttribute.remote_address, None) is None
        assert listener.address in repr(listener)


@socket_transport
async def test_send_nowait_takes_what_fits_and_then_nothing(make):
    async with Pair(make) as (ours, theirs):
        sent = await fill(ours)
        assert sent > 0
        assert ours.send_nowait(b"x") == 0
        with anyio.fail_after(5):
            assert await receive_exactly(theirs, sent) == b"x" * sent
        assert ours.send_nowait(b"y") == 1


@socket_transport
async def test_send_nowait_does_not_tear_a_send_that_is_under_way(make):
    async with Pair(make) as (ours, _), anyio.create_task_group() as task_group:
        task_group.start_soon(ours.send, bytes(64 << 20))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            ours.send_nowait(b"x")
        task_group.cancel_scope.cancel()


@socket_transport
async def test_send_nowait_says_that_the_connection_is_gone(make):
    async with Pair(make) as (ours, theirs):
        await theirs.aclose()
        with pytest.raises(anyio.BrokenResourceError):
            for _ in range(1000):
                ours.send_nowait(b"x" * 1000)
                await anyio.lowlevel.checkpoint()
        await ours.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            ours.send_nowait(b"x")


@socket_transport
async def test_a_flooding_peer_does_not_starve_the_other_tasks(make):
    turns = 0
    async with Pair(make) as (ours, theirs), anyio.create_task_group() as task_group:

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        task_group.start_soon(count)
        await anyio.lowlevel.checkpoint()
        for _ in range(250):
            assert ours.send_nowait(b"x") == 1
        before = turns
        for _ in range(250):
            await theirs.receive(1)
        assert turns > before
        before = turns
        for _ in range(250):
            await ours.send(b"x")
        assert turns > before
        task_group.cancel_scope.cancel()


@socket_transport
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("last", [b"", b"x"])
async def test_asyncio_does_not_spin_on_a_socket_that_nobody_reads(make, last):
    # There the socket stays registered between two receives; readable for ever, it must not.
    import asyncio

    async with Pair(make) as (ours, theirs):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(theirs.receive)
            await anyio.wait_all_tasks_blocked()
            task_group.cancel_scope.cancel()
        for data in (b"held ", last):
            await (ours.send(data) if data else ours.send_eof())
            await some_turns()
        assert not asyncio.get_running_loop().remove_reader(
            theirs.extra(SocketAttribute.raw_socket)
        )


@socket_transport
async def test_foreign_clients_talk_to_our_listener(make):
    transport = make()
    async with transport.listen() as listener, anyio.create_task_group() as task_group:
        task_group.start_soon(listener.serve, echo)
        with anyio.fail_after(5):
            stream: anyio.abc.ByteStream
            if transport.network == "unix":
                stream = await anyio.connect_unix(transport.address)
            else:
                host, _, port = transport.address.rpartition(":")
                stream = await anyio.connect_tcp(host.strip("[]"), int(port))
            async with stream:
                await stream.send(b"ping")
                assert await receive_exactly(stream, 4) == b"ping"
        task_group.cancel_scope.cancel()


@pytest.mark.parametrize("network", ["tcp", "unix"])
async def test_our_client_talks_to_a_plain_blocking_server(network, tmp_path, monkeypatch):
    if network == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        host, port = server.getsockname()
        address = f"{host}:{port}"
    else:
        monkeypatch.chdir(tmp_path)
        address = "server.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(address)
        server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(3):
                connection.sendall(data.upper())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with anyio.fail_after(5):
            async with transport_for(network, address).connect() as stream:
                assert isinstance(stream, SocketStream)
                await stream.send(b"hello")
                await stream.send_eof()
                assert b"".join([data async for data in stream]) == b"HELLO"
    finally:
        thread.join()
        server.close()


@socket_transport
async def test_a_cancelled_connect_leaves_nothing(make):
    transport = make()
    async with transport.listen():
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with connector(transport).connect():
                await anyio.lowlevel.checkpoint()
        assert scope.cancel_called


@any_transport
@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_at_any_turn_of_the_loop_nothing_is_left(make, turns):
    transport = make()

    async def run() -> None:
        async with transport.listen() as listener, anyio.create_task_group() as task_group:
            task_group.start_soon(listener.serve, echo)
            async with connector(transport).connect() as stream:
                await stream.send(b"x")
                await stream.receive()
            task_group.cancel_scope.cancel()

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(run)
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        task_group.cancel_scope.cancel()
    with pytest.raises(TransportError):
        _ = transport.address


async def test_an_unknown_network_is_an_error():
    with pytest.raises(TransportError, match="unknown kind of network"):
        transport_for("udp", "127.0.0.1:1")
