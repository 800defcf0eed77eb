"""Brokered connections where the certificates are people's own."""

from __future__ import annotations

import functools
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pyvider_rpcplugin import SecurityError
from tests.crypto.material import Material, make as certificate
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

from .test_pairs import Callback, ask, inner_number, make

if TYPE_CHECKING:
    from pathlib import Path

    from pyvider_rpcplugin import RPCPluginClient

pytestmark = pytest.mark.process


@functools.cache
def authority() -> Material:
    return certificate(name="authority", ca=True)


@functools.cache
def leaf(number: int) -> Material:
    return certificate(issuer=authority(), number=number)


def plugin_environment() -> dict[str, str]:
    mine = leaf(1)
    return {
        "PLUGIN_SERVER_CERT": mine.pem,
        "PLUGIN_SERVER_KEY": mine.key_pem,
        "PLUGIN_CLIENT_ROOT_CERTS": authority().pem,
    }


async def call_the_inner_service(client: RPCPluginClient) -> str:
    async with inner_number(client, "inner") as number, client.broker.dial(number) as channel:
        return (await EchoStub(channel).Unary(EchoRequest(text="x"))).text


async def test_certificates_for_both_roles_work_in_both_directions() -> None:
    settings: dict[str, Any] = {
        "client_cert": leaf(2).pem,
        "client_key": leaf(2).key_pem,
        "server_root_certs": authority().pem,
    }
    with anyio.fail_after(15):
        async with make(env=plugin_environment(), **settings) as client:
            assert await call_the_inner_service(client) == "inner: x"
            async with client.broker.serve(Callback()) as number:
                assert await ask(client, "call-back", number) == "host heard from the plugin"


async def test_a_context_of_ones_own_has_the_one_direction(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.set_alpn_protocols(["h2"])
    tls.load_verify_locations(cadata=authority().der)
    path = tmp_path / "identity.pem"
    path.write_text(leaf(2).pem + leaf(2).key_pem)
    tls.load_cert_chain(path)
    with anyio.fail_after(15):
        async with make(env=plugin_environment(), tls=tls) as client:
            assert await call_the_inner_service(client) == "inner: x"
            with pytest.raises(SecurityError, match="other direction"):
                async with client.broker.serve(Callback()):
                    pass


def test_the_certificates_of_these_tests_have_both_roles() -> None:
    usage = leaf(1).certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
