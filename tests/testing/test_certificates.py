"""Certificates for tests, as both sides of TLS take them."""

from __future__ import annotations

import datetime as dt
import os
import ssl
import stat
import sys
from pathlib import Path

import anyio
import pytest

from pyvider_rpcplugin import SecurityError, plugin_client
from pyvider_rpcplugin.testing import CertificateAuthority, Scripted, scripted_plugin


def test_what_is_issued_is_accepted_by_who_trusts_the_authority(tmp_path: Path):
    authority = CertificateAuthority()
    certificate, key = authority.issue("localhost", "127.0.0.1").write(tmp_path, "server")
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    for trusted in (authority, CertificateAuthority()):
        client = ssl.create_default_context(cadata=trusted.pem)
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
        there = server.wrap_bio(to_server, to_client, server_side=True)
        for side in (here, there):
            with pytest.raises(ssl.SSLWantReadError):
                side.do_handshake()
        if trusted is authority:
            here.do_handshake()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                here.do_handshake()


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path):
    authority = CertificateAuthority()
    authority.write(tmp_path, "ca")
    with pytest.raises(FileExistsError):
        authority.write(tmp_path, "ca")


def test_an_authority_is_taken_up_again_from_its_files():
    authority = CertificateAuthority("the one")
    again = CertificateAuthority(pem=authority.pem, key_pem=authority.key_pem)
    assert again.issue().pem.startswith("-----BEGIN CERTIFICATE")
    assert "PRIVATE" not in repr(again)
    with pytest.raises(ValueError, match="everything"):
        again.issue(usage=["everything"])


@pytest.mark.process
async def test_a_host_and_a_plugin_with_certificates_of_their_own(tmp_path: Path):
    authority = CertificateAuthority()
    ca, _ = authority.write(tmp_path, "ca")
    client_cert, client_key = authority.issue("host").write(tmp_path, "host")
    for expired in (False, True):
        valid_for = dt.timedelta(days=-1 if expired else 1)
        cert, key = authority.issue(valid_for=valid_for).write(tmp_path, f"plugin-{expired}")
        client = plugin_client(
            scripted_plugin(),
            env={"PLUGIN_SERVER_CERT": cert, "PLUGIN_SERVER_KEY": key, "PLUGIN_CA_CERT": ca},
            client_cert=client_cert,
            client_key=client_key,
            ca_cert=ca,
        )
        with anyio.fail_after(15):
            if expired:
                with pytest.raises((SecurityError, Exception)) as caught:
                    await client.start()
                assert "expired" in str(caught.value)
            else:
                async with client:
                    assert await client.proxy(Scripted).echo(sys.platform) == sys.platform
