"""Keys and certificates for tests, made by `cryptography` rather than by our own code."""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KINDS = ("P-256", "P-384", "P-521", "RSA")

_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@functools.cache
def make_key(kind: str, number: int = 0) -> Any:
    """A private key; the same one for the same arguments."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "RSA-1024":
        return rsa.generate_private_key(65537, 1024)
    if kind == "secp256k1":
        return ec.generate_private_key(ec.SECP256K1())
    return ec.generate_private_key(_CURVES[kind])


@dataclass(frozen=True)
class Material:
    certificate: x509.Certificate
    key: Any
    issuer: Material | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def chain(self) -> str:
        """The certificate and those of its signers, without the last one."""
        text, above = self.pem, self.issuer
        while above is not None and above.issuer is not None:
            text += above.pem
            above = above.issuer
        return text

    @property
    def key_pem(self) -> str:
        return self.key_as("PKCS8")

    def key_as(self, form: str, password: bytes | None = None) -> str:
        formats = {
            "PKCS8": serialization.PrivateFormat.PKCS8,
            "SEC1": serialization.PrivateFormat.TraditionalOpenSSL,
        }
        encryption: Any = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(
            serialization.Encoding.PEM, formats[form], encryption
        ).decode()


def make(
    kind: str = "P-256",
    *,
    name: str = "localhost",
    issuer: Material | None = None,
    ca: bool = False,
    days: tuple[float, float] = (-1, 365),
    number: int = 0,
) -> Material:
    """A certificate, signed by `issuer` or by itself, valid from and until so many days from now."""
    key = make_key(kind, number)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    if not ca:
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    signer = key if issuer is None else issuer.key
    return Material(builder.sign(signer, hashes.SHA256()), key, issuer)


def foreign_context(
    folder: Path,
    *,
    server_side: bool,
    own: Material | None,
    trusts: list[bytes],
    version: str = "TLSv1_3",
    alpn: tuple[str, ...] = ("h2",),
    asks_client: bool = True,
) -> ssl.SSLContext:
    """A context as somebody else's program makes it, without our code."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if own is not None:
        path = folder / "foreign.pem"
        path.write_text(own.chain + own.key_pem)
        context.load_cert_chain(path)
        path.unlink()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if trusts:
        context.load_verify_locations(cadata=b"".join(trusts))
    if server_side and asks_client:
        context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
