"""TLS over our streams, against peers that are Python's own `ssl` on blocking sockets."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import socket
import ssl
import struct
import weakref
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from pyvider_rpcplugin.crypto import (
    Credentials,
    auto_client_context,
    auto_server_context,
    client_context,
    load_identity,
    load_roots,
    make_certificate,
    server_context,
)
from pyvider_rpcplugin.exception import SecurityError, TransportError
from pyvider_rpcplugin.transport import (
    MemoryTransport,
    SocketStream,
    TCPSocketTransport,
    TLSListener,
    TLSRefusedError,
    UnixSocketTransport,
    wrap_client,
    wrap_server,
)
from pyvider_rpcplugin.transport.memory import MemoryStream

from ..crypto.material import KINDS, Material, foreign_context, make

OURS = make_certificate()
VERSIONS = ("TLSv1_2", "TLSv1_3")
DATA = bytes(range(256)) * 1024


@pytest.fixture
def sockets():
    """Our stream of a pair, and the blocking socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    yield SocketStream(ours), theirs
    ours.close()
    theirs.close()


def auto(server_side: bool, peer: bytes) -> Credentials:
    """What AutoMTLS uses, with our certificate and one that the peer has announced."""
    make_context = auto_server_context if server_side else auto_client_context
    return Credentials(lambda: make_context(OURS, peer), pinned=peer)


async def wrap(stream, credentials, *, server_side):
    with anyio.fail_after(5):
        return await (wrap_server if server_side else wrap_client)(stream, credentials)


class Peer:
    """Somebody else's program at the other end: it answers what it gets until the end."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.sock = sock
        self.context = context
        self.server_side = server_side
        self.error: OSError | None = None
        self.received = b""
        self.certificate: bytes | None = None
        self.protocol: str | None = None
        self.clean_end = False

    def run(self) -> None:
        try:
            tls = self.context.wrap_socket(
                self.sock,
                server_side=self.server_side,
                server_hostname=None if self.server_side else "localhost",
                suppress_ragged_eofs=False,
            )
        except OSError as error:
            self.error = error
            self.sock.close()
            return
        with tls:
            self.certificate = tls.getpeercert(True)
            self.protocol = tls.selected_alpn_protocol()
            try:
                while data := tls.recv(65536):
                    self.received += data
                    tls.sendall(data)
                self.clean_end = True
            except OSError as error:
                self.error = error


@asynccontextmanager
async def running(sock, context, *, server_side):
    """Run a peer in a thread for the length of a block."""
    peer = Peer(sock, context, server_side=server_side)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, peer.run)
        try:
            yield peer
        except BaseException:
            # The thread cannot be cancelled, but it notices the end of its connection.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            raise


async def exchange(stream, data=b"hello"):
    with anyio.fail_after(5):
        await stream.send(data)
        return await receive_exactly(stream, len(data))


async def receive_exactly(stream, size):
    data = b""
    with anyio.fail_after(10):
        while len(data) < size:
            data += await stream.receive()
    return data


# --- with peers of each kind -------------------------------------------------------------------


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_peers_with_certificates_of_each_kind_are_talked_to(
    sockets, tmp_path, kind, version, server_side
):
    stream, sock = sockets
    theirs = make(kind)
    context = foreign_context(
        tmp_path, server_side=not server_side, own=theirs, trusts=[OURS.der], version=version
    )
    async with running(sock, context, server_side=not server_side) as peer:
        credentials = auto(server_side, theirs.der)
        async with await wrap(stream, credentials, server_side=server_side) as tls:
            assert await exchange(tls) == b"hello"
            assert tls.extra(TLSAttribute.tls_version) == version.replace("_", ".")
            assert tls.extra(TLSAttribute.peer_certificate_binary) == theirs.der
    assert peer.certificate == OURS.der
    assert peer.protocol == "h2"
    assert peer.clean_end
    assert peer.received == b"hello"


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
async def test_our_certificates_of_each_curve_are_good_for_both_sides(curve):
    one, other = make_certificate(curve), make_certificate(curve)
    ours, theirs = socket.socketpair()
    async with anyio.create_task_group() as tasks:

        async def serve():
            context = auto_server_context(one, other.der)
            async with await wrap(SocketStream(ours), context, server_side=True) as tls:
                await tls.send(await tls.receive())

        tasks.start_soon(serve)
        context = auto_client_context(other, one.der)
        async with await wrap(SocketStream(theirs), context, server_side=False) as tls:
            assert await exchange(tls) == b"hello"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_own_certificates_with_an_authority_work_in_both_roles(
    sockets, tmp_path, kind, version
):
    authority = make(name="authority", ca=True, number=5)
    middle = make("P-384", name="middle", ca=True, issuer=authority)
    host, plugin = make(kind, issuer=middle), make(kind, issuer=authority, number=1)
    identity = load_identity(host.chain, host.key_pem)
    roots = load_roots(authority.pem)
    for server_side in (True, False):
        ours, sock = socket.socketpair()
        sock.settimeout(5)
        context = foreign_context(
            tmp_path,
            server_side=not server_side,
            own=plugin,
            trusts=[authority.der],
            version=version,
        )
        own = server_context(identity, roots) if server_side else client_context(roots, identity)
        async with running(sock, context, server_side=not server_side) as peer:
            async with await wrap(SocketStream(ours), own, server_side=server_side) as tls:
                assert await exchange(tls) == b"hello"
        assert peer.certificate == host.der
        sock.close()


# --- who is refused ----------------------------------------------------------------------------


def strangers() -> dict[str, Material | None]:
    authority = make(name="elsewhere", ca=True, number=6)
    return {
        "without a certificate": None,
        "with one that it signed itself": make("P-384", number=7),
        "of another authority": make(issuer=authority, number=7),
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", list(strangers()))
@pytest.mark.parametrize("mode", ["auto", "own"])
async def test_a_client_that_is_a_stranger_gets_no_byte_through(
    sockets, tmp_path, version, who, mode
):
    stream, sock = sockets
    stranger = strangers()[who]
    context = foreign_context(
        tmp_path, server_side=False, own=stranger, trusts=[OURS.der], version=version
    )
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if mode == "auto":
        credentials = auto(True, make("P-521").der)
    else:
        authority = make(name="authority", ca=True, number=5)
        plugin = make(issuer=authority)
        identity = load_identity(plugin.pem, plugin.key_pem)
        own = server_context(identity, load_roots(authority.pem))
        credentials = Credentials(lambda: own)
    async with running(sock, context, server_side=False) as peer:
        with pytest.raises(SecurityError) as caught:
            await wrap(stream, credentials, server_side=True)
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
    assert caught.value.phase == "tls"
    assert caught.value.hint
    assert ("showed no certificate" in caught.value.message) == (stranger is None)
    assert isinstance(peer.error, OSError)
    assert not peer.received


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", list(strangers())[1:])
async def test_a_server_that_is_a_stranger_is_not_talked_to(sockets, tmp_path, version, who):
    stream, sock = sockets
    context = foreign_context(
        tmp_path, server_side=True, own=strangers()[who], trusts=[OURS.der], version=version
    )
    async with running(sock, context, server_side=True) as peer:
        with pytest.raises(SecurityError, match="the server's certificate is not accepted"):
            await wrap(stream, auto(False, make("P-521").der), server_side=False)
    assert peer.error is not None
    assert not peer.received


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_certificate_that_the_announced_one_signed_is_not_the_announced_one(
    sockets, tmp_path, version, server_side
):
    stream, sock = sockets
    announced = make("P-384", name="announced", ca=True)
    signed = make("P-256", issuer=announced, number=8)
    context = foreign_context(
        tmp_path, server_side=not server_side, own=signed, trusts=[OURS.der], version=version
    )
    async with running(sock, context, server_side=not server_side) as peer:
        with pytest.raises(SecurityError, match="not the one that it announced"):
            await wrap(stream, auto(server_side, announced.der), server_side=server_side)
    assert not peer.received


async def test_a_certificate_with_another_name_is_refused(sockets, tmp_path):
    stream, sock = sockets
    theirs = make(name="elsewhere.example")
    context = foreign_context(tmp_path, server_side=True, own=theirs, trusts=[OURS.der])
    async with running(sock, context, server_side=True):
        with pytest.raises(SecurityError, match="certificate is not accepted") as caught:
            await wrap(stream, auto(False, theirs.der), server_side=False)
    assert "name" in (caught.value.hint or "")


async def test_the_name_to_look_for_can_be_given(sockets, tmp_path):
    stream, sock = sockets
    theirs = make(name="elsewhere.example")
    context = foreign_context(tmp_path, server_side=True, own=theirs, trusts=[OURS.der])
    async with running(sock, context, server_side=True):
        with anyio.fail_after(5):
            tls = await wrap_client(
                stream, auto(False, theirs.der), server_hostname="elsewhere.example"
            )
        async with tls:
            assert await exchange(tls) == b"hello"


@pytest.mark.parametrize("days", [(-10, -1), (1, 10)], ids=["expired", "not yet valid"])
async def test_a_certificate_that_is_not_valid_now_is_refused(sockets, tmp_path, days):
    stream, sock = sockets
    theirs = make(days=days)
    context = foreign_context(tmp_path, server_side=True, own=theirs, trusts=[OURS.der])
    async with running(sock, context, server_side=True):
        with pytest.raises(SecurityError, match="certificate is not accepted"):
            await wrap(stream, auto(False, theirs.der), server_side=False)


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize("alpn", [(), ("http/1.1",)], ids=["none", "another"])
async def test_a_peer_that_does_not_agree_on_http2_is_refused(sockets, tmp_path, server_side, alpn):
    stream, sock = sockets
    theirs = make()
    context = foreign_context(
        tmp_path, server_side=not server_side, own=theirs, trusts=[OURS.der], alpn=alpn
    )
    async with running(sock, context, server_side=not server_side) as peer:
        with pytest.raises(SecurityError, match="HTTP/2"):
            await wrap(stream, auto(server_side, theirs.der), server_side=server_side)
    assert not peer.received


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_versions_that_are_too_old_are_refused(sockets, tmp_path, version):
    stream, sock = sockets
    theirs = make()
    context = foreign_context(
        tmp_path, server_side=False, own=theirs, trusts=[OURS.der], version=version
    )
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with running(sock, context, server_side=False) as peer:
        with pytest.raises(SecurityError, match="too old"):
            await wrap(stream, auto(True, theirs.der), server_side=True)
    assert peer.error is not None


async def test_weak_ciphers_are_refused(sockets, tmp_path):
    stream, sock = sockets
    theirs = make()
    context = foreign_context(
        tmp_path, server_side=False, own=theirs, trusts=[OURS.der], version="TLSv1_2"
    )
    context.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA")
    async with running(sock, context, server_side=False):
        with pytest.raises(SecurityError, match="cipher"):
            await wrap(stream, auto(True, theirs.der), server_side=True)


# --- a client that is refused --------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["another certificate", "no certificate"])
async def test_a_refused_client_learns_it_from_its_first_read(sockets, tmp_path, own):
    stream, sock = sockets
    theirs = make()
    context = foreign_context(
        tmp_path, server_side=True, own=theirs, trusts=[make("P-521", number=4).der]
    )
    client = (
        auto_client_context(OURS, theirs.der) if own else client_context(load_roots(theirs.pem))
    )
    async with running(sock, context, server_side=True) as peer:
        tls = await wrap(stream, client, server_side=False)
        # What it says meanwhile does not hide the reason.
        with suppress(anyio.BrokenResourceError):
            await tls.send(b"preface")
        for _ in range(2):
            with anyio.fail_after(5), pytest.raises(TLSRefusedError) as caught:
                await tls.receive()
            assert isinstance(caught.value, SecurityError)
            assert isinstance(caught.value, anyio.BrokenResourceError)
            assert caught.value.message.startswith("the server refused the connection")
            assert caught.value.phase == "tls"
            assert caught.value.hint
        await tls.aclose()
    assert peer.error is not None


async def test_a_refused_client_learns_it_in_the_handshake_under_tls_1_2(sockets, tmp_path):
    stream, sock = sockets
    theirs = make()
    context = foreign_context(
        tmp_path,
        server_side=True,
        own=theirs,
        trusts=[make("P-521", number=4).der],
        version="TLSv1_2",
    )
    async with running(sock, context, server_side=True):
        with pytest.raises(SecurityError, match="the server refused the connection"):
            await wrap(stream, auto(False, theirs.der), server_side=False)


async def test_a_server_that_closes_without_a_word_may_have_refused(sockets, tmp_path):
    stream, sock = sockets
    theirs = make()
    context = foreign_context(tmp_path, server_side=True, own=theirs, trusts=[OURS.der])

    def close_at_once():
        with context.wrap_socket(sock, server_side=True):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, close_at_once)
        tls = await wrap(stream, auto(False, theirs.der), server_side=False)
        with anyio.fail_after(5), pytest.raises(TLSRefusedError, match="without a word"):
            await tls.receive()
        await tls.aclose()


async def test_our_server_tells_the_client_why_before_it_closes():
    one, other, third = make_certificate(), make_certificate(), make_certificate()
    ours, theirs = socket.socketpair()
    async with anyio.create_task_group() as tasks:

        async def serve():
            with pytest.raises(SecurityError):
                await wrap(
                    SocketStream(ours), auto_server_context(one, other.der), server_side=True
                )

        tasks.start_soon(serve)
        context = auto_client_context(third, one.der)
        tls = await wrap(SocketStream(theirs), context, server_side=False)
        with suppress(anyio.BrokenResourceError):
            await tls.send(DATA)
        with anyio.fail_after(5), pytest.raises(TLSRefusedError, match="refused the connection"):
            await tls.receive()
        await tls.aclose()


# --- peers that do not speak TLS, or stop ----------------------------------------------------------


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
@pytest.mark.parametrize(
    "words",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\x12\x04\0\0\0\0\0" + bytes(18), b"GET / HTTP/1.1"],
    ids=["preface", "settings", "http1"],
)
async def test_a_peer_without_tls_is_said_to_be_one(sockets, server_side, words):
    stream, sock = sockets
    sock.send(words)
    with pytest.raises(SecurityError, match="does not speak TLS"):
        await wrap(stream, auto(server_side, OURS.der), server_side=server_side)


@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
async def test_a_connection_that_ends_in_the_handshake_is_lost(sockets, server_side):
    stream, sock = sockets
    sock.close()
    with pytest.raises(TransportError, match="closed the connection during the TLS handshake"):
        await wrap(stream, auto(server_side, OURS.der), server_side=server_side)


async def test_a_handshake_can_be_given_up(sockets):
    stream, _ = sockets
    with anyio.move_on_after(0.01) as scope:
        await wrap_client(stream, auto(False, OURS.der))
    assert scope.cancelled_caught
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()


async def test_a_context_for_the_other_side_closes_the_stream_too(sockets):
    stream, _ = sockets
    with pytest.raises(ssl.SSLError):
        await wrap_client(stream, auto_server_context(OURS, OURS.der))
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()


# --- a connection that is up -----------------------------------------------------------------------


@asynccontextmanager
async def connected(kind="socket"):
    """Both ends of a connection that are ours."""
    one, other = make_certificate(), make_certificate()
    raw: list[Any]
    if kind == "memory":
        raw = [*MemoryStream.pair()]
    else:
        raw = [SocketStream(sock) for sock in socket.socketpair()]
    ends = {}

    async def shake_hands(server_side):
        context = (
            auto_server_context(one, other.der)
            if server_side
            else auto_client_context(other, one.der)
        )
        ends[server_side] = await wrap(raw[server_side], context, server_side=server_side)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shake_hands, True)
        tasks.start_soon(shake_hands, False)
    try:
        yield ends[False], ends[True]
    finally:
        await ends[False].aclose()
        await ends[True].aclose()


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_both_ends_send_much_at_the_same_time(kind):
    async with connected(kind) as ends:
        got = {}

        async def send(end):
            for start in range(0, len(DATA) * 8, 100_000):
                await end.send((DATA * 8)[start : start + 100_000])

        async def receive(number):
            got[number] = await receive_exactly(ends[number], len(DATA) * 8)

        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(send, ends[number])
                tasks.start_soon(receive, number)
    assert got == {0: DATA * 8, 1: DATA * 8}


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_reads_of_any_size_lose_nothing(kind):
    async with connected(kind) as (one, other):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.send, DATA)
            got = b""
            sizes = [1, 3, 16_383, 16_384, 16_385, 70_000, 5]
            with anyio.fail_after(5):
                while len(got) < len(DATA):
                    size = sizes[len(got) % len(sizes)]
                    piece = await other.receive(size)
                    assert 0 < len(piece) <= size
                    got += piece
    assert got == DATA


async def test_records_that_come_one_byte_at_a_time_are_put_together(tmp_path):
    theirs = make()
    ours, sock = socket.socketpair()
    context = foreign_context(tmp_path, server_side=True, own=theirs, trusts=[OURS.der])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)

    def drip():
        with sock:
            sock.settimeout(5)
            for step in (server.do_handshake, lambda: server.write(b"word " * 20)):
                while True:
                    try:
                        step()
                    except ssl.SSLWantReadError:
                        send_each_byte(sock, outgoing.read())
                        incoming.write(sock.recv(65536))
                    else:
                        send_each_byte(sock, outgoing.read())
                        break
            while data := sock.recv(65536):
                incoming.write(data)
            assert server.read() == b"answer"
            with pytest.raises((ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
                if not server.read():
                    raise ssl.SSLZeroReturnError

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, drip)
        tls = await wrap(SocketStream(ours), auto(False, theirs.der), server_side=False)
        assert await receive_exactly(tls, 100) == b"word " * 20
        await tls.send(b"answer")
        await tls.aclose()


def send_each_byte(sock, data):
    for value in data:
        sock.send(bytes([value]))


async def test_a_stream_without_send_nowait_does_not_get_it():
    async with connected("memory") as ends:
        assert not any(hasattr(end, "send_nowait") for end in ends)
    async with connected("socket") as ends:
        assert all(hasattr(end, "send_nowait") for end in ends)


@pytest.mark.parametrize("size", [1, 2, 100, 16_384, 70_000, 1_000_000])
async def test_what_send_nowait_does_not_take_is_sent_next(size):
    data = os.urandom(size)
    async with connected() as (one, other):
        expected = b""
        # Until the socket is full, and what is left of it in the way that the engine does it.
        while True:
            taken = one.send_nowait(data)
            assert 0 <= taken <= size
            expected += data
            if taken < size:
                break
        rest = data[taken:]
        assert one.send_nowait(rest) < len(rest)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.send, rest)
            assert await receive_exactly(other, len(expected)) == expected
        assert one.send_nowait(b"afterwards") == 10
        assert await receive_exactly(other, 10) == b"afterwards"


async def test_send_nowait_goes_on_alone_when_there_is_room_again():
    data = os.urandom(300_000)
    async with connected() as (one, other):
        rest, got = memoryview(data), b""
        with anyio.fail_after(10):
            while rest:
                taken = one.send_nowait(bytes(rest))
                rest = rest[taken:]
                if rest:
                    got += await other.receive(50_000)
        got += await receive_exactly(other, len(data) - len(got))
    assert got == data


async def test_what_send_nowait_did_not_take_must_not_be_replaced():
    async with connected() as (one, _):
        while one.send_nowait(b"a" * 60_000) == 60_000:
            pass
        with pytest.raises(ValueError, match="before anything else"):
            await one.send(b"b")


async def test_nothing_is_taken_of_nothing():
    async with connected() as (one, other):
        assert one.send_nowait(b"") == 0
        await one.send(b"")
        await one.send(b"x")
        assert await other.receive() == b"x"


async def test_two_tasks_do_not_do_the_same_at_the_same_time():
    async with connected() as (one, other):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.receive)
            tasks.start_soon(other.send, DATA * 20)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await other.send(b"")
            with pytest.raises(anyio.BusyResourceError):
                other.send_nowait(b"x")
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await other.receive()
            tasks.cancel_scope.cancel()


async def test_a_cancelled_send_leaves_nothing_that_could_be_misread():
    async with connected() as (one, other):
        with anyio.move_on_after(0.01) as scope:
            await one.send(DATA * 20)
        assert scope.cancelled_caught
        with pytest.raises(anyio.BrokenResourceError):
            await one.send(b"more")
        with pytest.raises(anyio.BrokenResourceError):
            one.send_nowait(b"more")
        # The other direction is whole.
        await other.send(b"still there")
        assert await receive_exactly(one, 11) == b"still there"


async def test_a_cancelled_receive_loses_nothing():
    async with connected() as (one, other):
        with anyio.move_on_after(0.01) as scope:
            await one.receive()
        assert scope.cancelled_caught
        assert await exchange_between(other, one, b"later") == b"later"


async def exchange_between(sender, receiver, data):
    await sender.send(data)
    return await receive_exactly(receiver, len(data))


async def test_a_reader_of_a_fast_peer_gives_others_a_turn():
    async with connected() as (one, other):
        await one.send(b"x" * 30_000)
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            for _ in range(1000):
                await other.receive(1)
            tasks.cancel_scope.cancel()
    assert turns > 5


async def test_sizes_that_make_no_sense_are_refused():
    async with connected() as (one, _):
        with pytest.raises(ValueError, match="positive"):
            await one.receive(0)


async def test_one_direction_alone_cannot_be_closed():
    async with connected() as (one, _):
        with pytest.raises(NotImplementedError):
            await one.send_eof()


async def test_it_says_what_is_known_of_the_connection():
    async with connected() as (one, other):
        assert one.extra(TLSAttribute.alpn_protocol) == "h2"
        assert one.extra(TLSAttribute.tls_version) == "TLSv1.3"
        assert one.extra(TLSAttribute.cipher)[1] == "TLSv1.3"
        assert one.extra(TLSAttribute.server_side) is False
        assert one.extra(TLSAttribute.shared_ciphers) is None
        assert one.extra(TLSAttribute.standard_compatible) is True
        assert one.extra(TLSAttribute.ssl_object) is one.ssl_object
        assert other.extra(TLSAttribute.server_side) is True
        assert other.extra(TLSAttribute.shared_ciphers)
        subject = one.extra(TLSAttribute.peer_certificate)["subject"]
        assert (("commonName", "localhost"),) in subject
        assert one.extra(SocketAttribute.family) == socket.AF_UNIX
        assert "TLSv1.3" in repr(one)


# --- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_the_end_is_told(kind):
    async with connected(kind) as (one, other):
        await one.send(b"last words")
        await one.aclose()
        await one.aclose()
        assert "closed" in repr(one)
        assert await receive_exactly(other, 10) == b"last words"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await other.receive()
        for action in (one.receive, lambda: one.send(b"x")):
            with pytest.raises(anyio.ClosedResourceError):
                await action()


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_a_cut_connection_is_no_end(kind):
    async with connected(kind) as (one, other):
        await exchange_between(other, one, b"x")
        await one.send(b"last words")
        await one._stream.aclose()
        assert await receive_exactly(other, 10) == b"last words"
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError):
                await other.receive()


async def test_bytes_that_were_changed_on_the_way_break_the_connection():
    async with connected() as (one, other):
        await exchange_between(other, one, b"x")
        await one._stream.send(b"\x17\x03\x03" + struct.pack(">H", 40) + bytes(40))
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError):
                await other.receive()


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_closing_wakes_who_waits(kind):
    async with connected(kind) as (one, other):
        results = []

        async def wait_for(action):
            with pytest.raises((anyio.ClosedResourceError, anyio.BrokenResourceError)) as caught:
                await action()
            results.append(caught.type)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for, one.receive)
            tasks.start_soon(wait_for, lambda: one.send(DATA * 20))
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                await one.aclose()
        assert results == [anyio.ClosedResourceError] * 2
        del other


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_closing_does_not_wait_for_a_peer_that_does_not_read(kind):
    async with connected(kind) as (one, other):
        with anyio.move_on_after(0.01):
            while True:
                await other.send(DATA)
        # Not even if it could say goodbye, had it room.
        other._torn = False
        with anyio.fail_after(5):
            await other.aclose()
        del one


async def test_closing_in_a_cancelled_scope_closes():
    for kind in ("socket", "memory"):
        async with connected(kind) as (one, other):
            await exchange_between(other, one, b"x")
            await anyio.aclose_forcefully(other)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await one.receive()


async def test_a_closed_connection_leaves_no_reference_cycle():
    gc.collect()
    gc.disable()
    try:
        async with connected() as (one, other):
            await exchange_between(one, other, b"x")
            references = [weakref.ref(one), weakref.ref(one.ssl_object), weakref.ref(other)]
        del one, other
        assert [reference() for reference in references] == [None] * 3
    finally:
        gc.enable()


# --- listening -----------------------------------------------------------------------------------


async def test_a_listener_serves_its_friends_and_refuses_strangers(tmp_path, caplog):
    host, plugin, stranger = (make_certificate() for _ in range(3))
    credentials = Credentials(lambda: auto_server_context(plugin, host.der), pinned=host.der)
    served = []

    async def handle(stream):
        served.append(stream.extra(TLSAttribute.peer_certificate_binary))
        await stream.send(await stream.receive())

    transport = UnixSocketTransport()
    async with transport.listen() as raw, anyio.create_task_group() as tasks:
        listener = TLSListener(raw, credentials)
        assert listener.address == raw.address
        assert listener.extra(SocketAttribute.family) == socket.AF_UNIX

        async def serve():
            with pytest.raises(anyio.ClosedResourceError):
                await listener.serve(handle, tasks)

        tasks.start_soon(serve)
        silent = await UnixSocketTransport(raw.address).connect()
        with caplog.at_level(logging.WARNING):
            stream = await UnixSocketTransport(raw.address).connect()
            context = auto_client_context(stranger, plugin.der)
            tls = await wrap(stream, context, server_side=False)
            with anyio.fail_after(5), pytest.raises(TLSRefusedError):
                await tls.receive()
            await tls.aclose()
        assert "refused a connection" in caplog.text
        stream = await UnixSocketTransport(raw.address).connect()
        tls = await wrap(stream, auto_client_context(host, plugin.der), server_side=False)
        assert await exchange(tls) == b"hello"
        await tls.aclose()
        assert served == [host.der]
        caplog.clear()
        # Who never said a word does not keep the server from stopping.
        await listener.aclose()
        with pytest.raises(anyio.EndOfStream), anyio.fail_after(5):
            await silent.receive()
        await silent.aclose()
    assert not caplog.records


async def test_a_listener_gives_a_silent_client_up(caplog):
    transport = MemoryTransport()
    async with transport.listen() as raw, anyio.create_task_group() as tasks:
        listener = TLSListener(raw, auto(True, OURS.der), handshake_timeout=0.01)

        async def never(stream):
            pytest.fail("it did not shake hands")

        tasks.start_soon(listener.serve, never)
        stream = await transport.connect()
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()
        tasks.cancel_scope.cancel()
    assert "no TLS handshake within 0.01 seconds" in caplog.text


async def test_a_listener_can_give_out_one_connection_at_a_time(caplog):
    host, plugin = make_certificate(), make_certificate()
    transport = MemoryTransport()
    async with transport.listen() as raw, anyio.create_task_group() as tasks:
        listener = TLSListener(raw, auto_server_context(plugin, host.der))

        async def connect():
            await (await transport.connect()).aclose()
            context = auto_client_context(host, plugin.der)
            tls = await wrap(await transport.connect(), context, server_side=False)
            await tls.send(b"hello")
            await tls.aclose()

        tasks.start_soon(connect)
        with anyio.fail_after(5):
            async with await listener.accept() as tls:
                assert await tls.receive() == b"hello"
        await listener.aclose()
        assert repr(listener).startswith("<TLSListener")
    assert "closed the connection during" in caplog.text


# --- OpenSSL's own program -------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program")
async def test_a_peer_may_ask_for_new_keys_at_any_time(tmp_path):
    theirs = make("P-521")
    (tmp_path / "own.pem").write_text(theirs.pem + theirs.key_pem)
    async with TCPSocketTransport().listen() as listener:
        command = ["openssl", "s_client", "-connect", listener.address, "-alpn", "h2", "-tls1_3"]
        command += ["-cert", "own.pem", "-key", "own.pem"]
        async with (
            await anyio.open_process(command, cwd=tmp_path) as process,
            await listener.accept() as stream,
        ):
            assert process.stdin is not None
            assert process.stderr is not None
            tls = await wrap(stream, auto(True, theirs.der), server_side=True)
            for number in range(3):
                # "K" has the program renew its keys, and ask for new ones here.
                await process.stdin.send(b"K\n")
                said = b""
                with anyio.fail_after(5):
                    while b"KEYUPDATE" not in said:
                        said += await process.stderr.receive()
                line = f"line {number}\n".encode()
                await process.stdin.send(line)
                assert await receive_exactly(tls, len(line)) == line
                assert tls.send_nowait(b"answer\n") == 7
            await tls.aclose()
            process.kill()
