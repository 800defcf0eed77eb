"""Certificates of two authorities, in files, and the environment that names them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tests.crypto.material import KINDS, Material, make

if TYPE_CHECKING:
    from pathlib import Path

# The two sides of a pair never have the same kind of key, and each kind is on either side once.
OTHER_KIND = dict(zip(KINDS, (*KINDS[1:], KINDS[0]), strict=True))


@functools.cache
def authority(name: str = "authority") -> Material:
    return make("P-384", name=name, ca=True)


@functools.cache
def signed(kind: str, by: str = "authority") -> Material:
    return make(kind, issuer=authority(by))


def write(folder: Path, name: str, own: Material) -> tuple[str, str]:
    """Write a certificate and its key; return their paths."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_text(own.chain)
    key.write_text(own.key_pem)
    key.chmod(0o600)
    return str(certificate), str(key)


def host_settings(folder: Path, kind: str) -> dict[str, Any]:
    certificate, key = write(folder, f"host-{kind}", signed(kind))
    return {"client_cert": certificate, "client_key": key, "ca_cert": ca_file(folder)}


def plugin_environment(folder: Path, kind: str) -> dict[str, str]:
    certificate, key = write(folder, f"plugin-{kind}", signed(kind))
    return {
        "PLUGIN_SERVER_CERT": certificate,
        "PLUGIN_SERVER_KEY": key,
        "PLUGIN_CA_CERT": ca_file(folder),
    }


def ca_file(folder: Path) -> str:
    path = folder / "ca.crt"
    path.write_text(authority().pem)
    return str(path)
