"""TCP: addresses, ports and what is said when they cannot be had."""

from __future__ import annotations

import socket

import anyio
import hypothesis
import pytest
from anyio.abc import SocketAttribute
from hypothesis import strategies

from pyvider_rpcplugin.exception import TransportError
from pyvider_rpcplugin.transport import TCPSocketTransport, transport_for
from pyvider_rpcplugin.transport.tcp import format_address, parse_address

pytestmark = pytest.mark.net


async def refused(transport) -> TransportError:
    with pytest.raises(TransportError) as caught:
        async with transport.listen():
            pytest.fail("it listens")
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


async def test_port_0_is_replaced_by_the_one_that_the_system_chose():
    async with TCPSocketTransport().listen() as listener:
        host, port = parse_address(listener.address)
    assert host == "127.0.0.1"
    assert port > 0


async def test_a_port_that_is_taken_is_an_error_even_for_ourselves():
    async with TCPSocketTransport().listen() as listener:
        _, port = parse_address(listener.address)
        assert "in use" in (await refused(TCPSocketTransport(port=port))).message


async def test_a_port_can_be_used_again_at_once_though_connections_linger():
    transport = TCPSocketTransport()
    async with transport.listen() as listener:
        _, port = parse_address(listener.address)
        async with transport_for("tcp", listener.address).connect() as stream:
            accepted = await listener.accept()
            # The side that closes first is the one that lingers: the server's.
            await accepted.aclose()
            with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
                await stream.receive()
    async with TCPSocketTransport(port=port).listen() as listener:
        assert parse_address(listener.address)[1] == port


async def test_a_range_gives_its_first_free_port():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        transport = TCPSocketTransport(port_range=(taken, min(taken + 50, 65535)))
        async with transport.listen() as listener:
            assert taken < parse_address(listener.address)[1] <= taken + 50


async def test_a_range_that_is_all_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        error = await refused(TCPSocketTransport(port_range=(taken, taken)))
        assert "in use" in error.message


@pytest.mark.parametrize(
    "options",
    [
        {"port": -1},
        {"port": 65536},
        {"port_range": (5, 4)},
        {"port_range": (0, 70000)},
        {"port": 5, "port_range": (5, 6)},
    ],
    ids=repr,
)
async def test_a_port_that_is_none_is_an_error(options):
    await refused(TCPSocketTransport(**options))


@pytest.mark.parametrize("host", ["fe80::1%no-such-interface", "x" * 64 + ".invalid", ""])
async def test_a_host_that_is_unknown_is_an_error(host):
    assert host in (await refused(TCPSocketTransport(host))).message
    with pytest.raises(TransportError) as caught:
        await TCPSocketTransport(host, 1).connect()
    assert caught.value.hint


async def test_an_address_of_another_machine_is_an_error():
    # An address for documentation, which no machine has.
    assert "does not have" in str(await refused(TCPSocketTransport("192.0.2.1")))


async def test_nobody_listening_is_an_error_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with anyio.fail_after(5), pytest.raises(TransportError, match="refused") as caught:
        await TCPSocketTransport("127.0.0.1", port).connect()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.hint


async def test_small_messages_are_not_held_back():
    async with TCPSocketTransport().listen() as listener:
        async with transport_for("tcp", listener.address).connect() as ours:
            async with await listener.accept() as theirs:
                for stream in (ours, theirs):
                    raw = stream.extra(SocketAttribute.raw_socket)
                    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    if hasattr(socket, "SO_REUSEPORT"):
                        assert not raw.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("127.0.0.1", 1, "127.0.0.1:1"),
        ("::1", 65535, "[::1]:65535"),
        ("fe80::1%eth0", 5, "[fe80::1%eth0]:5"),
        ("localhost", 80, "localhost:80"),
    ],
)
def test_addresses_are_written_and_read(host, port, address):
    assert format_address(host, port) == address
    assert parse_address(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        ":1",
        "host",
        "host:",
        "host:x",
        "host:-1",
        "host:0",
        "host:65536",
        "::1:5",
        "h:\u0661",
    ],
)
def test_what_is_no_address_is_an_error(address):
    with pytest.raises(TransportError, match="not a tcp address"):
        parse_address(address)


@hypothesis.given(strategies.text())
def test_reading_an_address_never_fails_in_another_way(text):
    try:
        host, port = parse_address(text)
    except TransportError:
        return
    assert parse_address(format_address(host, port)) == (host, port)
