"""Whatever is wrong with certificates of one's own is one clear error, at once, on either side."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pyvider_rpcplugin import SecurityError, plugin_client, plugin_server
from tests.crypto.material import Material, make
from tests.plugins import echo
from tests.plugins.echo_plugin import Echo
from tests.trust.material import authority, ca_file, signed, write

if TYPE_CHECKING:
    from collections.abc import Callable

# What each does to the certificate's or to the key's file, and what the error says beside its name.
WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("crt", lambda path: path.write_text(""), "empty"),
    "cut off": ("crt", lambda path: path.write_text(path.read_text()[:-60]), "cut off"),
    "a folder": ("crt", lambda path: replace(path, Path.mkdir), "directory"),
    "not there": ("crt", lambda path: path.unlink(), "no such file"),
    "a pipe": ("crt", lambda path: replace(path, os.mkfifo), "no regular file"),
    "DER": (
        "crt",
        lambda path: path.write_bytes(ssl.PEM_cert_to_DER_cert(path.read_text())),
        "DER",
    ),
    "the key": ("crt", lambda path: path.write_text(signed("P-256").key_pem), "no certificate"),
    "expired": ("crt", lambda path: path.write_text(dated(-20, -10).pem), "expired on 20"),
    "too early": ("crt", lambda path: path.write_text(dated(10, 20).pem), "not valid before 20"),
    "wrong order": (
        "crt",
        lambda path: path.write_text(authority().pem + signed("P-256").pem),
        "order",
    ),
    "key empty": ("key", lambda path: path.write_text("\n"), "empty"),
    "key cut off": ("key", lambda path: path.write_text(path.read_text()[:-60]), "cut off"),
    "key garbled": (
        "key",
        lambda path: path.write_text(path.read_text().replace("M", "m")),
        "cannot be read",
    ),
    "key of another": ("key", lambda path: path.write_text(make("P-384").key_pem), "not that of"),
    "key encrypted": (
        "key",
        lambda path: path.write_text(signed("P-256").key_as("PKCS8", b"x")),
        "encrypted",
    ),
    "key a certificate": ("key", lambda path: path.write_text(signed("P-256").pem), "private key"),
}


def replace(path: Path, make_another: Callable[[Path], None]) -> None:
    path.unlink()
    make_another(path)


def dated(*days: float) -> Material:
    return make("P-256", issuer=authority(), days=(days[0], days[1]))


@pytest.mark.parametrize("side", ["host", "plugin"])
@pytest.mark.parametrize("which", WRONG)
async def test_each_wrong_file_is_named(side: str, which: str, tmp_path: Path) -> None:
    certificate, key = write(tmp_path, "own", signed("P-256"))
    kind, spoil, words = WRONG[which]
    spoiled = tmp_path / f"own.{kind}"
    if which in {"expired", "too early"}:
        (tmp_path / "own.key").write_text(dated(0, 1).key_pem)
    spoil(spoiled)
    error = await refusal(side, certificate, key, ca_file(tmp_path))
    assert error.phase == "tls"
    assert words in error.message
    names = {"host": "PLUGIN_CLIENT", "plugin": "PLUGIN_SERVER"}
    assert f"{names[side]}_{'CERT' if kind == 'crt' else 'KEY'} ({spoiled})" in error.message


@pytest.mark.parametrize("side", ["host", "plugin"])
async def test_a_wrong_authority_is_named(side: str, tmp_path: Path) -> None:
    certificate, key = write(tmp_path, "own", signed("P-256"))
    (tmp_path / "bad").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for bad in ("bad", "nothing"):
        error = await refusal(side, certificate, key, str(tmp_path / bad))
        assert f"PLUGIN_CA_CERT ({tmp_path / bad})" in error.message


@pytest.mark.parametrize("side", ["host", "plugin"])
async def test_what_expires_soon_is_one_warning_at_the_start(
    side: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = write(tmp_path, "soon", dated(-1, 20))
    other = write(tmp_path, "other", signed("P-256"))
    mine, theirs = ((certificate, key), other) if side == "host" else (other, (certificate, key))
    ca = ca_file(tmp_path)
    server = plugin_server(
        handler=Echo(), standalone=True, server_cert=theirs[0], server_key=theirs[1], ca_cert=ca
    )
    with anyio.fail_after(10):
        async with server.serve() as address:
            client = plugin_client(
                address=address, client_cert=mine[0], client_key=mine[1], ca_cert=ca
            )
            async with client:
                await client.ping()
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "expires on 20" in warning.getMessage()
    assert str(certificate) in warning.getMessage()


async def refusal(side: str, certificate: str, key: str, ca: str) -> SecurityError:
    with anyio.fail_after(5), pytest.raises(SecurityError) as caught:
        if side == "host":
            client = plugin_client(echo(), client_cert=certificate, client_key=key, ca_cert=ca)
            await client.start()
        else:
            server: Any = plugin_server(
                handler=Echo(),
                standalone=True,
                server_cert=certificate,
                server_key=key,
                ca_cert=ca,
            )
            await server.serve()
    assert "\n" not in caught.value.message
    return caught.value
