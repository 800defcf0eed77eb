"""What the two sides decide about AutoMTLS, and that neither goes on with less than was asked for."""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings, strategies as st

from pyvider_rpcplugin import (
    ConfigError,
    HandshakeError,
    RPCPluginError,
    SecurityError,
    plugin_client,
    plugin_server,
)
from pyvider_rpcplugin.config import Settings
from pyvider_rpcplugin.crypto import auto_certificate, host_tls
from pyvider_rpcplugin.handshake import parse_handshake_line
from tests.crypto.material import Material, foreign_context, make
from tests.plugins import echo
from tests.plugins.echo_plugin import Echo
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest
from tests.trust.material import ca_file, host_settings, plugin_environment, signed, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process

PEM = make("P-521", ca=True).pem


def says(field: str) -> list[str]:
    """A plugin that prints a line with this as its certificate, and listens to nobody."""
    line = f"1|1|unix|/nowhere|grpc{field}"
    return [sys.executable, "-S", "-c", f"import time; print({line!r}, flush=True); time.sleep(60)"]


async def refusal(client: Any, kind: type[RPCPluginError] = SecurityError) -> RPCPluginError:
    with anyio.fail_after(10), pytest.raises(kind) as caught:
        await client.start()
    error = caught.value
    assert error.hint
    assert len(str(error).splitlines()) <= 6
    await client.stop()
    return error


async def call(client: Any, text: str = "x") -> str:
    reply = await client.stub(EchoStub).Unary(EchoRequest(text=text))
    return str(reply.text)


def connection_of(client: Any) -> Any:
    [connection] = client.grpc_channel._connections
    return connection


# --- a host


@pytest.mark.parametrize("auto_mtls", [True, "required"])
@pytest.mark.parametrize("field", ["", "|", "||false"])
async def test_a_host_refuses_a_plugin_without_a_certificate(field: str, auto_mtls: Any) -> None:
    error = await refusal(plugin_client(says(field), auto_mtls=auto_mtls))
    assert "its handshake line has no certificate" in error.message
    assert "PLUGIN_AUTO_MTLS" in (error.hint or "")
    assert error.phase == "handshake"


@pytest.mark.parametrize("way", ["plain", "own", "context"])
async def test_a_host_refuses_a_certificate_that_it_did_not_ask_for(
    way: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"auto_mtls": False}
    if way == "own":
        options = host_settings(tmp_path, "P-256")
    elif way == "context":
        options = {"tls": ssl.create_default_context()}
    der = base64.b64encode(make().der).decode().rstrip("=")
    error = await refusal(plugin_client(says(f"|{der}"), **options))
    assert "not asked for" in error.message


@pytest.mark.parametrize(
    "field",
    [
        "A" * 400,
        "!" * 400,
        base64.b64encode(make().der[:-30]).decode().rstrip("="),
        base64.b64encode(make().der + b"\0").decode().rstrip("="),
        base64.b64encode(b"\x30\x82\x01\x90" + bytes(400)).decode().rstrip("="),
        base64.b64encode(PEM.encode()).decode().rstrip("="),
        "short",
    ],
    ids=["zeros", "no-base64", "cut-off", "too-long", "no-certificate", "pem", "short"],
)
async def test_a_host_refuses_a_certificate_that_it_cannot_read(field: str) -> None:
    error = await refusal(plugin_client(says(f"|{field}")))
    assert "certificate" in error.message


@given(st.binary(max_size=300), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_garbage_for_a_certificate_is_refused_and_nothing_else(
    data: bytes, shaped: bool, encoded: bool
) -> None:
    if shaped:
        data = b"\x30\x82" + len(data).to_bytes(2, "big") + data
    text = base64.b64encode(data).decode().rstrip("=") if encoded else data.decode("latin-1")
    auto_certificate()
    try:
        record = parse_handshake_line(f"1|1|unix|/x|grpc|{text}", versions=[1])
        host_tls(Settings()).credentials(record.certificate)
    except (SecurityError, HandshakeError) as error:
        assert error.message  # noqa: PT017 - either kind, or none
    else:
        pytest.fail("it was taken for a certificate")


async def test_a_host_with_certificates_of_its_own_does_not_ask_for_automatic_ones(
    tmp_path: Path,
) -> None:
    client = plugin_client(
        echo(), env=plugin_environment(tmp_path, "P-256"), **host_settings(tmp_path, "P-256")
    )
    with anyio.fail_after(10):
        async with client:
            assert await call(client, "env:PLUGIN_CLIENT_CERT") == ""
            shown = connection_of(client).stream.ssl_object.getpeercert(True)
            assert shown == signed("P-256").der


async def test_a_host_does_without_a_certificate_if_the_plugin_lets_it_in(tmp_path: Path) -> None:
    # The plugin's context asks for none, and the host's settings only say whom it trusts.
    server = plugin_server(
        handler=Echo(),
        standalone=True,
        tls=foreign_context(
            tmp_path, server_side=True, own=signed("RSA"), trusts=[], asks_client=False
        ),
    )
    with anyio.fail_after(10):
        async with server.serve() as address:
            async with plugin_client(address=address, ca_cert=ca_file(tmp_path)) as client:
                assert await call(client) == "x"


async def test_a_host_that_requires_tls_attaches_to_nobody_without() -> None:
    server = plugin_server(handler=Echo(), standalone=True, auto_mtls=False)
    with anyio.fail_after(10):
        async with server.serve() as address:
            error = await refusal(plugin_client(address=address, auto_mtls="required"))
    assert "PLUGIN_AUTO_MTLS=required" in error.message


async def test_attaching_without_tls_is_one_warning_unless_it_was_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = plugin_server(handler=Echo(), standalone=True, auto_mtls=False)
    with anyio.fail_after(10):
        async with server.serve() as address:
            for auto_mtls, warnings in ((True, 1), (False, 0)):
                caplog.clear()
                async with plugin_client(address=address, auto_mtls=auto_mtls) as client:
                    assert await call(client) == "x"
                assert caplog.text.count("is plain") == warnings


@pytest.mark.parametrize("context", ["server's", "nonsense"])
async def test_a_context_for_the_other_side_is_refused(context: str) -> None:
    wrong: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if context == "server's" else "yes"
    await refusal(plugin_client(echo(), tls=wrong), ConfigError)
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if context == "server's" else "yes"
    server = plugin_server(handler=Echo(), tls=wrong, standalone=True)
    with pytest.raises(ConfigError, match="tls="):
        await server.serve()


# --- a plugin


async def test_a_plugin_without_its_host_s_certificate_serves_plainly_with_one_warning() -> None:
    client = plugin_client(echo(), auto_mtls=False)
    with anyio.fail_after(10):
        async with client:
            assert await call(client) == "x"
    assert client.exit is not None
    [line] = [line for line in client.exit.stderr_tail if "plain" in line]
    assert json.loads(line)["@message"] == "connections are plain: the host did not ask for TLS"


async def test_a_plugin_that_requires_it_refuses_a_host_without() -> None:
    client = plugin_client(echo(), auto_mtls=False, env={"PLUGIN_AUTO_MTLS": "required"})
    error = await refusal(client, HandshakeError)
    assert error.exit_status == 1
    assert "PLUGIN_AUTO_MTLS=required" in "".join(error.stderr_tail)


async def test_a_plugin_that_has_it_off_is_refused_by_a_host_that_has_it_on() -> None:
    error = await refusal(plugin_client(echo(), env={"PLUGIN_AUTO_MTLS": "false"}))
    assert "no certificate" in error.message


async def test_a_plugin_with_certificates_of_its_own_makes_no_other(tmp_path: Path) -> None:
    # So a host that wants automatic ones refuses it, rather than to trust what it cannot know.
    error = await refusal(plugin_client(echo(), env=plugin_environment(tmp_path, "P-256")))
    assert "no certificate" in error.message


@pytest.mark.parametrize(
    "pem",
    [
        "nonsense",
        PEM[:-60],
        PEM.replace("CERTIFICATE", "PRIVATE KEY"),
        PEM + PEM,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "/etc/hostname",
    ],
    ids=["text", "cut-off", "a-key", "two", "garbage", "a-path"],
)
async def test_a_plugin_refuses_a_host_whose_certificate_it_cannot_read(pem: str) -> None:
    environment = {
        **os.environ,
        "PLUGIN_MAGIC_COOKIE": "rpcplugin-default-cookie",
        "PLUGIN_PROTOCOL_VERSIONS": "1",
        "PLUGIN_CLIENT_CERT": pem,
    }
    with anyio.fail_after(10):
        done = await anyio.run_process(echo(), env=environment, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    words = done.stderr.decode().splitlines()
    assert "PLUGIN_CLIENT_CERT" in words[0]
    assert words[1].startswith("Hint: ")
    assert len(words) == 2


@pytest.mark.parametrize("missing", ["PLUGIN_SERVER_KEY", "PLUGIN_SERVER_CERT", "PLUGIN_CA_CERT"])
async def test_half_an_identity_keeps_a_plugin_from_serving(missing: str, tmp_path: Path) -> None:
    environment = plugin_environment(tmp_path, "P-256")
    del environment[missing]
    client = plugin_client(echo(), env=environment, **host_settings(tmp_path, "P-256"))
    error = await refusal(client, HandshakeError)
    assert "PLUGIN_" in "".join(error.stderr_tail)
    assert missing.partition("_CERT")[0] in "".join(error.stderr_tail)


# --- one inside of the other


async def test_a_plugin_s_own_plugins_get_nothing_of_its_host() -> None:
    client = plugin_client(echo())
    with anyio.fail_after(15):
        async with client:
            answer, certificate, folder, inner_certificate, inner_folder = json.loads(
                await call(client, "nest")
            )
    assert answer == "inner"
    assert certificate.startswith("-----BEGIN CERTIFICATE-----")
    assert inner_certificate.startswith("-----BEGIN CERTIFICATE-----")
    assert certificate != inner_certificate
    assert folder != inner_folder


# --- refused by the other side


async def test_a_host_that_its_plugin_does_not_trust_is_told_so_at_the_start(
    tmp_path: Path,
) -> None:
    environment = plugin_environment(tmp_path, "P-256")
    certificate, key = write(tmp_path, "stranger", signed("P-256", by="other"))
    client = plugin_client(
        echo(),
        env=environment,
        client_cert=certificate,
        client_key=key,
        ca_cert=ca_file(tmp_path),
    )
    error = await refusal(client)
    assert error.phase == "tls"
    assert "refused" in error.message


async def test_a_plugin_of_another_authority_or_another_name_is_refused(tmp_path: Path) -> None:
    ours = host_settings(tmp_path, "P-256")
    for own in (signed("P-256", by="other"), make(name="elsewhere", issuer=signed("P-256").issuer)):
        certificate, key = write(tmp_path, "plugin", own)
        environment = {
            "PLUGIN_SERVER_CERT": certificate,
            "PLUGIN_SERVER_KEY": key,
            "PLUGIN_CA_CERT": ca_file(tmp_path),
        }
        error = await refusal(plugin_client(echo(), env=environment, **ours))
        assert "the server's certificate is not accepted" in error.message


# --- rotation


async def test_new_files_count_for_new_connections(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = plugin_environment(tmp_path, "P-256")
    server = plugin_server(handler=Echo(), standalone=True, config=config)
    client = plugin_client(address="", **host_settings(tmp_path, "P-256"))
    authority = signed("P-256").issuer
    with anyio.fail_after(10):
        async with server.serve() as address:
            client._address = address
            async with client:
                assert await seen_from_both_sides(client) == serials(signed("P-256"))
                new = {name: make("P-384", issuer=authority) for name in ("host", "plugin")}
                # A certificate without its key: who is half way through keeps the old ones.
                for name, own in new.items():
                    (tmp_path / f"{name}-P-256.crt").write_text(own.pem)
                await connect_again(client)
                assert await seen_from_both_sides(client) == serials(signed("P-256"))
                assert caplog.text.count("stay in use") == 2
                for name, own in new.items():
                    write(tmp_path, f"{name}-P-256", own)
                await connect_again(client)
                assert await seen_from_both_sides(client) == serials(new["host"], new["plugin"])
                assert caplog.text.count("stay in use") == 2


def serials(host: Material, plugin: Material | None = None) -> list[int]:
    return [own.certificate.serial_number for own in (host, plugin or host)]


async def seen_from_both_sides(client: Any) -> list[int]:
    """The numbers of the certificates that the plugin sees, and that the host sees."""
    host = await call(client, "peer")
    return [int(number, 16) for number in (host, connection_of(client).peer.cert()["serialNumber"])]


async def connect_again(client: Any) -> None:
    before = connection_of(client)
    before.close()
    while before in client.grpc_channel._connections:
        await anyio.lowlevel.checkpoint()
    assert await call(client) == "x"
