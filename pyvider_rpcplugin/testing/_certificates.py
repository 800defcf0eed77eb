"""Certificates for tests of one's own TLS: an authority, and what it issues."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["CertificateAuthority", "IssuedCertificate"]

_YEAR = dt.timedelta(days=365)
_HOUR = dt.timedelta(hours=1)


class IssuedCertificate:
    """A certificate and its private key, as PEM.

    Attributes:
        pem: The certificate.
        key_pem: The key, not encrypted.
    """

    def __init__(self, pem: str, key_pem: str) -> None:
        self.pem: str = pem
        self.key_pem: str = key_pem

    def __repr__(self) -> str:
        return "<IssuedCertificate>"

    def write(self, folder: str | os.PathLike[str], name: str) -> tuple[str, str]:
        """Write both into files that only this user may read.

        Args:
            folder: Where; it is made if it is missing.
            name: What the files are called, without `.crt` and `.key`.

        Returns:
            The paths of the certificate and of the key, as settings take them.

        Raises:
            OSError: One of the files is there already, or cannot be written.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        paths = place / f"{name}.crt", place / f"{name}.key"
        for path, text in zip(paths, (self.pem, self.key_pem), strict=True):
            mode = 0o600 if path is paths[1] else 0o644
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(text)
        return str(paths[0]), str(paths[1])


class CertificateAuthority(IssuedCertificate):
    """An authority that signs certificates; made anew each time, and known to nobody.

    It takes about a tenth of a second: what makes certificates is loaded only here.
    """

    def __init__(
        self,
        name: str = "an authority for tests",
        *,
        valid_for: dt.timedelta = _YEAR,
        pem: str | None = None,
        key_pem: str | None = None,
    ) -> None:
        """Make one, or take one that there is.

        Args:
            name: Its common name.
            valid_for: How long its own certificate is valid.
            pem: The certificate of one that there is; then `name` and `valid_for` mean nothing.
            key_pem: Its key.

        Raises:
            ValueError: What was given is no certificate, or no key.
        """
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as promised

        self._issuer: Any = None
        if pem is None or key_pem is None:
            self._key: Any = ec.generate_private_key(ec.SECP256R1())
            certificate = self._signed(name, self._key, valid_for=valid_for, is_ca=True)
            self._issuer = certificate
            super().__init__(_certificate_pem(certificate), _key_pem(self._key))
            return
        from cryptography import x509  # noqa: PLC0415 - as promised
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - likewise

        self._issuer = x509.load_pem_x509_certificate(pem.encode())
        self._key = serialization.load_pem_private_key(key_pem.encode(), None)
        super().__init__(pem, key_pem)

    def __repr__(self) -> str:
        return "<CertificateAuthority>"

    def issue(
        self,
        *names: str,
        valid_for: dt.timedelta = _YEAR,
        usage: Collection[str] = ("server", "client"),
    ) -> IssuedCertificate:
        """Make a key and a certificate for it.

        Args:
            names: The host names and IP addresses that it is for; `localhost` if none is given,
                which is what hosts look for in the certificates of plugins.
            valid_for: How long it is valid; it began an hour ago, so less than nothing makes one
                that has expired.
            usage: Of "server" and "client".

        Raises:
            ValueError: A usage is neither.
        """
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as promised

        if unknown := set(usage) - {"server", "client"}:
            msg = f"a certificate is for 'server' and 'client', not for {sorted(unknown)}"
            raise ValueError(msg)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(
            *(names or ("localhost",)), key=key, valid_for=valid_for, usage=usage
        )
        return IssuedCertificate(_certificate_pem(certificate), _key_pem(key))

    def _signed(
        self,
        *names: Any,
        key: Any = None,
        valid_for: dt.timedelta,
        is_ca: bool = False,
        usage: Collection[str] = (),
    ) -> Any:
        from cryptography import x509  # noqa: PLC0415 - as promised
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - likewise
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415 - likewise

        if is_ca:
            names, key = names[:1], names[1]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        now = dt.datetime.now(dt.UTC)
        # What has expired has to have begun before.
        begin = min(now, now + valid_for) - _HOUR
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self._issuer is None else self._issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(now + valid_for)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            # Python's default contexts ask for these two from 3.13 on.
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if is_ca:
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        else:
            usages = {
                "server": ExtendedKeyUsageOID.SERVER_AUTH,
                "client": ExtendedKeyUsageOID.CLIENT_AUTH,
            }
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([usages[one] for one in usage]), critical=False
            ).add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]),
                critical=False,
            )
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> Any:
    from cryptography import x509  # noqa: PLC0415 - as promised

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _certificate_pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as promised

    text: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return text.decode()


def _key_pem(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as promised

    text: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text.decode()
