"""Every way of trust, over both transports, with every kind of key, on both loops on either side."""

from __future__ import annotations

import functools
import json
import sys
from typing import TYPE_CHECKING, Any

import anyio
import h2.connection
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.crypto import make_certificate
from tests.crypto.material import KINDS, make
from tests.plugins import FOLDER, echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.trust.material import (
    OTHER_KIND,
    host_settings,
    plugin_environment,
    signed,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pyvider_rpcplugin import RPCPluginClient

pytestmark = pytest.mark.process

CURVES = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}
WAYS = [
    *(("auto", kind) for kind in CURVES),
    *(("own", kind) for kind in KINDS),
    ("plain", ""),
]


@pytest.mark.parametrize("network", ["unix", "tcp"])
@pytest.mark.parametrize(("way", "kind"), WAYS)
async def test_a_call_works_and_nobody_else_is_served(
    way: str, kind: str, network: str, anyio_backend: tuple[str, Any], tmp_path: Path
) -> None:
    # Both loops for the host, and in all the same and the other one for the plugin.
    loops = ["asyncio", "trio"]
    here = loops.index(anyio_backend[0])
    there = loops[here if network == "unix" else 1 - here]
    client = make_client(way, kind, echo("--loop", there, "--transport", network), tmp_path)
    with anyio.fail_after(15):
        async with client:
            stub = client.stub(EchoStub)
            assert (await stub.Unary(EchoRequest(text="loop"))).text == there
            [connection] = channel_of(client)._connections
            if way == "plain":
                assert connection.peer.cert() is None
                # Which also shows that the intruder knows how to call.
                [[how, received]] = await intrude(address_of(client), [(None, None)])
                assert (how, received > 0) == ("answered", True)
                return
            tls = connection.stream.ssl_object
            assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", "h2")
            assert kind_of(tls.getpeercert(True)) == kind

            attempts = intruders(way, tmp_path)
            for _, received in await intrude(address_of(client), attempts):
                assert received == 0, "an intruder was answered"
            # None of their calls got through, and the host is served as before.
            assert (await stub.Unary(EchoRequest(text="seen"))).text == "loop seen"


def make_client(way: str, kind: str, command: list[str], folder: Path) -> RPCPluginClient:
    match way:
        case "auto":
            return plugin_client(
                command,
                cert_curve=CURVES[next(other for other in CURVES if other != kind)],
                env={"PLUGIN_CERT_CURVE": CURVES[kind]},
            )
        case "own":
            return plugin_client(
                command,
                env=plugin_environment(folder, kind),
                **host_settings(folder, OTHER_KIND[kind]),
            )
    return plugin_client(command, auto_mtls=False)


def intruders(way: str, folder: Path) -> list[tuple[str | None, str | None]]:
    """The certificate that each shows, and the version of TLS that it speaks."""
    another_host = make_certificate()
    (folder / "another.pem").write_text(another_host.pem + another_host.key_pem)
    files = [
        None,
        joined(folder, "self-signed", make()),
        joined(folder, "other-authority", signed("P-256", by="other")),
        str(folder / "another.pem"),
    ]
    if way == "auto":
        # An authority that has signed for others is not the one certificate that was announced.
        files.append(joined(folder, "authority", signed("P-256")))
    return [(None, None), (None, "TLSv1_2"), *((file, "TLSv1_3") for file in files)]


def joined(folder: Path, name: str, own: Any) -> str:
    path = folder / f"{name}.pem"
    path.write_text(own.chain + own.key_pem)
    return str(path)


async def intrude(address: str, attempts: list[tuple[str | None, str | None]]) -> list[list[Any]]:
    """Make the attempts in another process."""
    task = {"address": address, "attempts": attempts, "words": call("intruder").hex()}
    done = await anyio.run_process(
        [sys.executable, "-S", str(FOLDER / "intruder.py")], input=json.dumps(task).encode()
    )
    results: list[list[Any]] = json.loads(done.stdout)
    assert len(results) == len(attempts)
    return results


@functools.cache
def call(text: str) -> bytes:
    """A whole unary call, as the first bytes of a connection."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    connection.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/testing.echo.Echo/Unary"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ],
    )
    message = EchoRequest(text=text).SerializeToString()
    connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    return connection.data_to_send()


def address_of(client: RPCPluginClient) -> str:
    launch: Any = client._launch
    return str(launch.record.address)


def channel_of(client: RPCPluginClient) -> Any:
    return client.grpc_channel


def kind_of(der: bytes) -> str:
    key = x509.load_der_x509_certificate(der).public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return next(kind for kind, curve in CURVES.items() if curve == key.curve.name)
    return "RSA"
