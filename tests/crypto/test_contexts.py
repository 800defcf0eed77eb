"""What the contexts are made of, and that keys reach OpenSSL without touching a disk."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin.crypto import (
    auto_client_context,
    auto_server_context,
    client_context,
    contexts,
    load_identity,
    load_roots,
    make_certificate,
    require_certificate,
    require_h2,
    server_context,
)
from pyvider_rpcplugin.crypto.contexts import peer_certificate
from pyvider_rpcplugin.exception import SecurityError

from .material import make

OWN = make_certificate()


def all_contexts() -> dict[str, ssl.SSLContext]:
    made = make()
    identity, roots = load_identity(made.pem, made.key_pem), load_roots(made.pem)
    return {
        "auto server": auto_server_context(OWN, made.der),
        "auto client": auto_client_context(OWN, made.der),
        "server": server_context(identity, roots),
        "client": client_context(roots, identity),
        "client without a certificate": client_context(roots),
    }


@pytest.mark.parametrize("role", list(all_contexts()))
def test_each_context_is_strict(role):
    context = all_contexts()[role]
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname == ("client" in role)
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert len(context.get_ca_certs(binary_form=True)) <= 1  # only what it was given
    for cipher in context.get_ciphers():
        assert cipher["aead"]
        assert cipher["protocol"] == "TLSv1.3" or cipher["kea"] == "kx-ecdhe"
    if role.endswith("server"):
        assert context.num_tickets == 0


@pytest.mark.parametrize("make_context", [auto_server_context, auto_client_context])
def test_a_peer_that_is_no_certificate_is_refused(make_context):
    good = make("P-521").der
    for peer in (b"", b"garbage", good[:-1], good + b"\0", good + good, b"\x30\x03\x02\x01\x01"):
        with pytest.raises(SecurityError, match="can be read") as caught:
            make_context(OWN, peer)
        assert caught.value.phase == "tls"


@given(data=st.binary(max_size=200), at=st.integers(0, 500), width=st.integers(0, 20))
def test_garbage_for_a_peer_does_nothing_but_raise_the_documented_error(data, at, width):
    good = OWN.der
    for peer in (
        data,
        b"\x30\x81" + bytes([len(data)]) + data,
        good[:at] + data + good[at + width :],
    ):
        with contextlib.suppress(SecurityError):
            auto_server_context(OWN, peer)


def test_a_host_hands_over_exactly_one_certificate():
    made = make("P-521")
    assert peer_certificate(made.pem) == made.der
    assert peer_certificate(f"\n{made.pem.replace(chr(10), chr(13) + chr(10))}\n") == made.der
    for text in (
        "",
        "garbage",
        made.pem * 2,
        made.pem + "trailing",
        made.key_pem,
        made.pem[:-30],
        made.pem.replace("M", "*"),
    ):
        with pytest.raises(SecurityError, match="PLUGIN_CLIENT_CERT"):
            peer_certificate(text)


# --- the private key -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files on this system")
def test_a_key_never_gets_to_a_disk():
    """No file is opened for writing while contexts are made, not even for a moment."""
    script = """
import os, sys
from pyvider_rpcplugin.crypto import auto_client_context, auto_server_context, make_certificate
own = make_certificate()
auto_server_context(own, own.der)  # everything is loaded, and its compiled form written
def watch(event, arguments):
    if event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print(arguments)
    elif event in ("os.mkdir", "os.rename", "os.link", "tempfile.mkstemp", "tempfile.mkdtemp"):
        print(event, arguments)
sys.addaudithook(watch)
for make_context in (auto_server_context, auto_client_context):
    make_context(make_certificate(), own.der)
open(os.devnull, "w").close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50
    )
    (line,) = done.stdout.splitlines()
    assert os.devnull in line  # the watching works


@pytest.fixture(params=["none", "refused", "no /proc"])
def _without_memory_files(monkeypatch, request):
    def refuse(*_):
        raise OSError

    if request.param == "none":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("no memory files on this system")
    elif request.param == "refused":
        monkeypatch.setattr(os, "memfd_create", refuse)
    else:
        monkeypatch.setattr(os.path, "exists", lambda path: False)


@pytest.mark.usefixtures("_without_memory_files")
def test_where_there_are_no_memory_files_it_is_a_private_file_and_removed_at_once(monkeypatch):
    seen = []
    load = ssl.SSLContext.load_cert_chain

    def watch(self, certfile, keyfile=None, password=None):
        path = Path(certfile)
        seen.append(
            (
                stat.S_IMODE(path.stat().st_mode),
                stat.S_IMODE(path.parent.stat().st_mode),
                sorted(each.name for each in path.parent.iterdir()),
                b"PRIVATE KEY" in path.read_bytes(),
                path,
            )
        )
        return load(self, certfile, keyfile, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    before = os.umask(0)
    try:
        auto_server_context(OWN, OWN.der)
    finally:
        os.umask(before)
    ((mode, folder_mode, names, has_key, path),) = seen
    assert (mode, folder_mode, names, has_key) == (0o600, 0o700, [path.name], True)
    assert not path.parent.exists()


@pytest.mark.usefixtures("_without_memory_files")
def test_the_file_is_removed_when_openssl_refuses_it_too(tmp_path):
    # The autouse fixture of all tests sees what is left.
    with pytest.raises(SecurityError, match="OpenSSL does not accept"):
        contexts._load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"nothing")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory files on this system")
def test_a_memory_file_is_closed_again_and_not_inherited():
    before = set(os.listdir("/proc/self/fd"))
    with contexts._as_file(b"secret") as path:
        number = int(Path(path).name)
        assert Path(path).read_bytes() == b"secret"
        assert not os.get_inheritable(number)
    assert set(os.listdir("/proc/self/fd")) == before


def test_openssl_never_asks_the_terminal_for_a_password():
    encrypted = make().key_as("PKCS8", b"sesame").encode()
    script = """
import ssl, sys
from pyvider_rpcplugin.crypto import contexts
from pyvider_rpcplugin.exception import SecurityError
try:
    contexts._load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), sys.stdin.buffer.read())
except SecurityError as error:
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=make().pem.encode() + encrypted,
        capture_output=True,
        check=True,
        timeout=50,
        start_new_session=True,
    )
    assert done.stdout.split() == [b"refused"]
    assert not done.stderr


# --- checks after the handshake --------------------------------------------------------------------


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(one, other, server_side=True),
        client.wrap_bio(other, one, server_hostname="localhost"),
    )
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


def test_two_of_ours_accept_and_pin_each_other():
    one, other = make_certificate(), make_certificate("secp521r1")
    ends = handshake(auto_server_context(one, other.der), auto_client_context(other, one.der))
    for end, peer, stranger in zip(ends, (other, one), (one, other), strict=True):
        require_h2(end)
        require_certificate(end, peer.der)
        with pytest.raises(SecurityError, match="not the one"):
            require_certificate(end, stranger.der)


def test_without_agreement_on_http2_a_connection_is_refused():
    one, other = make_certificate(), make_certificate()
    client = auto_client_context(other, one.der)
    client.set_alpn_protocols(["http/1.1"])
    ends = handshake(auto_server_context(one, other.der), client)
    for end in ends:
        with pytest.raises(SecurityError, match="HTTP/2"):
            require_h2(end)
