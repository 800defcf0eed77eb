"""A certificate as people look at it. Only this module and `_identity` load an X.509 library."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pyvider_rpcplugin.crypto._generated import pem_text
from pyvider_rpcplugin.crypto._source import PemSource, decode, refused

if TYPE_CHECKING:
    import os

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["Certificate"]

_CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE")
_KINDS = (
    (x509.DNSName, "DNS"),
    (x509.IPAddress, "IP"),
    (x509.UniformResourceIdentifier, "URI"),
    (x509.RFC822Name, "email"),
)


@final
class Certificate:
    """An X.509 certificate: an immutable value, equal to any other one of the same bytes.

    Attributes:
        der: The certificate itself.
        subject: Whose it is, as RFC 4514 writes it: `CN=localhost,O=Example`.
        issuer: Who signed it, likewise.
        serial_number: Its number.
        sans: The names and addresses that it is good for: `("DNS:localhost", "IP:127.0.0.1")`.
        not_before: When its validity begins, in UTC.
        not_after: When it ends, in UTC.
        key_type: `EC`, `RSA`, or the name of another kind.
        key_size: The length of its key in bits.
        curve: The curve of an elliptic-curve key: `secp256r1`; None for any other key.
        is_ca: Whether it may sign other certificates.
    """

    __slots__ = (
        "_x509",
        "curve",
        "der",
        "is_ca",
        "issuer",
        "key_size",
        "key_type",
        "not_after",
        "not_before",
        "sans",
        "serial_number",
        "subject",
    )

    def __init__(self, der: bytes, *, label: str = "the certificate") -> None:
        """Read a certificate from its DER; `label` is what errors call it.

        Raises:
            SecurityError: It is none.
        """
        self.der: bytes = bytes(der)
        try:
            self._read(x509.load_der_x509_certificate(self.der))
        except Exception:  # noqa: BLE001 - the library raises many kinds, all with the same meaning
            reason = f"{label} holds no certificate that can be read"
            raise refused(reason, "It may be damaged or cut off.") from None

    def _read(self, found: x509.Certificate) -> None:
        self._x509 = found
        self.subject: str = found.subject.rfc4514_string()
        self.issuer: str = found.issuer.rfc4514_string()
        self.serial_number: int = found.serial_number
        self.not_before: datetime = found.not_valid_before_utc
        self.not_after: datetime = found.not_valid_after_utc
        self.key_type: str
        self.key_size: int
        self.curve: str | None
        self.key_type, self.key_size, self.curve = _describe(found.public_key())
        self.sans: tuple[str, ...] = _sans(found)
        self.is_ca: bool = _is_ca(found)

    @classmethod
    def from_der(cls, der: bytes) -> Certificate:
        """Read a certificate from DER.

        Raises:
            SecurityError: It is none.
        """
        return cls(der)

    @classmethod
    def from_pem(cls, pem: str | bytes) -> Certificate:
        """Read the first certificate of a PEM text.

        Raises:
            SecurityError: There is none.
        """
        data = pem if isinstance(pem, bytes) else pem.encode(errors="replace")
        return cls._chain(PemSource("the text", data))[0]

    @classmethod
    def load(cls, source: str | os.PathLike[str], *, setting: str = "certificate") -> Certificate:
        """Read the first certificate of a PEM text, a `file://` URI, or a path.

        Args:
            source: Where it is.
            setting: What errors call it.

        Raises:
            SecurityError: There is none.
        """
        return cls.load_chain(source, setting=setting)[0]

    @classmethod
    def load_chain(
        cls, source: str | os.PathLike[str], *, setting: str = "certificate"
    ) -> tuple[Certificate, ...]:
        """Read all certificates of a PEM text, a `file://` URI, or a path, in their order.

        Raises:
            SecurityError: There is none, or one of them cannot be read.
        """
        return cls._chain(PemSource(setting, source))

    @classmethod
    def _chain(cls, source: PemSource) -> tuple[Certificate, ...]:
        found: list[Certificate] = []
        blocks = source.blocks("certificate", _CERTIFICATE_LABELS)
        for number, block in enumerate(blocks, 1):
            label = source.label if len(blocks) == 1 else f"block {number} of {source.label}"
            found.append(cls(decode(block) or b"", label=label))
        return tuple(found)

    @property
    def common_name(self) -> str | None:
        """The subject's common name, if it has one."""
        found = self._x509.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(found[0].value) if found else None

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The host names that it is good for."""
        return tuple(name[4:] for name in self.sans if name.startswith("DNS:"))

    @property
    def ip_addresses(self) -> tuple[str, ...]:
        """The addresses that it is good for."""
        return tuple(name[3:] for name in self.sans if name.startswith("IP:"))

    @property
    def expires_in(self) -> timedelta:
        """How long it is valid still; negative once it has expired."""
        return self.not_after - datetime.now(UTC)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, in hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def pem(self) -> str:
        """The certificate as PEM text."""
        return pem_text("CERTIFICATE", self.der)

    @property
    def public_key(self) -> Any:
        """The public key, as an object of `cryptography`."""
        return self._x509.public_key()

    def is_issued_by(self, issuer: Certificate) -> bool:
        """Whether `issuer` bears the name of its issuer, and has signed it."""
        try:
            self._x509.verify_directly_issued_by(issuer._x509)
        except Exception:  # noqa: BLE001 - whatever it is that cannot be verified
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return self.der == other.der if isinstance(other, Certificate) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.der)

    def __repr__(self) -> str:
        key = self.curve or f"{self.key_type} {self.key_size}"
        return f"<Certificate {self.subject!r}, {key}, valid until {self.not_after:%Y-%m-%d}>"

    def __reduce__(self) -> Any:
        return (Certificate, (self.der,))


def _describe(key: CertificatePublicKeyTypes) -> tuple[str, int, str | None]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "EC", key.key_size, key.curve.name
    if isinstance(key, rsa.RSAPublicKey):
        return "RSA", key.key_size, None
    return type(key).__name__.removesuffix("PublicKey"), getattr(key, "key_size", 0), None


def _sans(found: x509.Certificate) -> tuple[str, ...]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        f"{kind}:{name.value}"
        for name in names
        for known, kind in _KINDS
        if isinstance(name, known)
    )


def _is_ca(found: x509.Certificate) -> bool:
    try:
        return found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
