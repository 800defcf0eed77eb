"""Peers that behave as go-plugin does, built on OpenSSL: as a plugin, and as a host."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest

from pyvider_rpcplugin import SecurityError, plugin_client
from tests.crypto.material import Material, make
from tests.plugins import FOLDER, echo
from tests.plugins.openssl_peer import call, connect, context
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoReply, EchoRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


def peer(kind: str = "P-521", version: str = "TLSv1_3", fault: str = "") -> list[str]:
    return [sys.executable, str(FOLDER / "openssl_peer.py"), kind, version, fault]


# --- as a plugin


@pytest.mark.parametrize(
    ("kind", "version"), [("P-521", "TLSv1_3"), ("P-521", "TLSv1_2"), ("RSA", "TLSv1_3")]
)
async def test_our_host_calls_such_a_plugin(kind: str, version: str) -> None:
    with anyio.fail_after(10):
        async with plugin_client(peer(kind, version)) as client:
            reply = await client.stub(EchoStub).Unary(EchoRequest(text="from python"))
            assert reply.text == "from python"
    assert client.exit is not None
    assert client.exit.status == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no-alpn", "HTTP/2"),
        ("announces-another", "certificate"),
        ("shows-what-it-has-signed", "certificate"),
        ("trusts-another-host", "refused"),
    ],
)
async def test_our_host_refuses_one_that_is_not_as_it_should_be(fault: str, words: str) -> None:
    client = plugin_client(peer(fault=fault))
    with anyio.fail_after(10), pytest.raises(SecurityError, match=words) as caught:
        await client.start()
    assert caught.value.phase == "tls"
    assert caught.value.hint


# --- as a host


class Started:
    """Our plugin, as a program of Go starts it."""

    def __init__(self, loop: str, own: Material) -> None:
        self.process = subprocess.Popen(
            echo("--loop", loop),
            env=os.environ
            | {
                "PLUGIN_MAGIC_COOKIE": "rpcplugin-default-cookie",
                "PLUGIN_PROTOCOL_VERSIONS": "1",
                "PLUGIN_MIN_PORT": "10000",
                "PLUGIN_MAX_PORT": "25000",
                "PLUGIN_CLIENT_CERT": own.pem,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        fields = self.process.stdout.readline().decode().strip().split("|")
        assert fields[:3] + fields[4:5] == ["1", "1", "unix", "grpc"]
        self.address = fields[3]
        assert "=" not in fields[5]
        self.certificate = base64.b64decode(fields[5] + "=" * (-len(fields[5]) % 4))


@pytest.fixture(params=["P-521", "RSA"])
def own(request: pytest.FixtureRequest) -> Material:
    return make(request.param, ca=True)


@pytest.fixture(params=["asyncio", "trio"])
def plugin(request: pytest.FixtureRequest, own: Material) -> Iterator[Started]:
    started = Started(request.param, own)
    with started.process:
        try:
            yield started
        finally:
            started.process.kill()


def test_our_plugin_serves_such_a_host_and_nobody_else(plugin: Started, own: Material) -> None:
    strangers = {
        "no HTTP/2": context(
            own, plugin.certificate, server_side=False, version="TLSv1_3", alpn=False
        ),
        "no certificate": context(None, plugin.certificate, server_side=False, version="TLSv1_3"),
        "another host": context(
            make("P-521", ca=True), plugin.certificate, server_side=False, version="TLSv1_3"
        ),
        "signed by the host": context(
            make("P-256", issuer=own), plugin.certificate, server_side=False, version="TLSv1_3"
        ),
    }
    message = EchoRequest(text="from go").SerializeToString()
    for who, tls in strangers.items():
        # With TLS 1.3 the client is told when it reads.
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(plugin.address, tls) as stream:
            call(stream, "/testing.echo.Echo/Unary", message)
            pytest.fail(f"{who} was served")

    for version in ("TLSv1_3", "TLSv1_2"):
        tls = context(own, plugin.certificate, server_side=False, version=version)
        with connect(plugin.address, tls) as stream:
            assert stream.selected_alpn_protocol() == "h2"
            status, reply = call(stream, "/testing.echo.Echo/Unary", message)
            assert (status, EchoReply.FromString(reply).text) == ("0", "from go")

    with connect(plugin.address, tls) as stream:
        assert call(stream, "/plugin.GRPCController/Shutdown", b"")[0] == "0"
    assert plugin.process.wait(timeout=50) == 0
