"""Certificates that people bring: an identity (a chain and its key), and whom to trust."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pyvider_rpcplugin.crypto._certificate import Certificate
from pyvider_rpcplugin.crypto._source import PemSource, refused
from pyvider_rpcplugin.crypto._template import CURVES

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["Identity", "Roots", "load_identity", "load_roots"]

logger = logging.getLogger(__name__)

_KEY_LABELS = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
_SMALLEST_RSA_KEY = 2048
_SOON = timedelta(days=30)


@final
class Identity:
    """A chain of certificates, one's own first, and the private key of the first."""

    __slots__ = ("_key_pem", "chain")

    def __init__(self, chain: tuple[Certificate, ...], key_pem: bytes) -> None:
        self.chain: tuple[Certificate, ...] = chain
        self._key_pem = key_pem

    @property
    def certificate(self) -> Certificate:
        """One's own certificate."""
        return self.chain[0]

    @property
    def pem(self) -> bytes:
        """The chain and the key, in one text, for `ssl` alone."""
        return "".join(each.pem for each in self.chain).encode() + self._key_pem

    def __repr__(self) -> str:
        return f"<Identity {self.certificate!r}>"

    def __reduce__(self) -> Any:
        msg = "an identity cannot be pickled: its private key stays in its process"
        raise TypeError(msg)


@final
class Roots:
    """Certificates that are trusted, with all that they have signed."""

    __slots__ = ("certificates",)

    def __init__(self, certificates: tuple[Certificate, ...]) -> None:
        self.certificates: tuple[Certificate, ...] = certificates

    @property
    def der(self) -> bytes:
        """All of them, one after the other."""
        return b"".join(each.der for each in self.certificates)


def load_identity(
    certificate: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    password: str | bytes | None = None,
    settings: tuple[str, str] = ("certificate", "key"),
) -> Identity:
    """Load a certificate (with the rest of its chain, if it has one) and its private key.

    Args:
        certificate: PEM text, a `file://` URI, or a path.
        key: Likewise: PKCS #8 or the older forms of EC and RSA keys, encrypted or not.
        password: What an encrypted key is encrypted with.
        settings: What errors call the two.

    Raises:
        SecurityError: One of them cannot be read, they do not belong together, the chain is not
            in its order, or one of the certificates is not valid now.
    """
    label = PemSource(settings[0], certificate).label
    chain = Certificate.load_chain(certificate, setting=settings[0])
    private = _load_key(PemSource(settings[1], key), password)
    _check_match(chain, private, label, PemSource(settings[1], key).label)
    for signed, signer in itertools.pairwise(chain):
        if not signed.is_issued_by(signer):
            msg = f"the chain in {label} is not in its order: {signer.subject} did not sign what "
            msg += f"stands before it, {signed.subject}"
            raise refused(msg, "One's own certificate comes first, then each one's signer.")
    _check_validity(chain, label)
    key_pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Identity(chain, key_pem)


def load_roots(source: str | os.PathLike[str], *, setting: str = "ca_cert") -> Roots:
    """Load the certificates of those whom to trust.

    Args:
        source: PEM text, a `file://` URI, or a path.
        setting: What errors call it.

    Raises:
        SecurityError: It cannot be read, or none of the certificates is valid now.
    """
    found = Certificate.load_chain(source, setting=setting)
    label = PemSource(setting, source).label
    now = datetime.now(UTC)
    # Bundles keep the old authority for a while when there is a new one.
    valid = tuple(each for each in found if each.not_before <= now <= each.not_after)
    _check_validity(valid or found, label)
    for each in found:
        if each not in valid:
            logger.warning("%s: %s is left out, since it is not valid now", label, each.subject)
    return Roots(valid)


def _load_key(source: PemSource, password: str | bytes | None) -> Any:
    blocks = source.blocks("private key of a kind that is accepted", _KEY_LABELS)
    if len(blocks) > 1:
        msg = f"{source.label} holds {len(blocks)} private keys"
        raise refused(msg, "It has to hold the one of the certificate.")
    text = blocks[0].text
    encrypted = b"ENCRYPTED" in text
    if encrypted and not password:
        msg = f"the private key in {source.label} is encrypted"
        raise refused(msg, "Give its password, or the key without encryption.")
    secret = password.encode() if isinstance(password, str) else password
    try:
        key = serialization.load_pem_private_key(text, secret if encrypted else None)
    except Exception:  # noqa: BLE001 - what the library raises for damaged keys is not documented
        # Raised below and without its cause: nothing of what it says about a key is repeated.
        key = None
    if key is None:
        reason = "cannot be decrypted with the password" if encrypted else "cannot be read"
        msg = f"the private key in {source.label} {reason}"
        raise refused(msg, "It may be damaged or cut off.")
    _check_strength(key, source.label)
    return key


def _check_strength(key: Any, label: str) -> None:
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size >= _SMALLEST_RSA_KEY:
            return
        msg = f"the RSA key in {label} has {key.key_size} bits: {_SMALLEST_RSA_KEY} are the least"
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name in CURVES:
            return
        msg = f"the key in {label} is of the curve {key.curve.name}, which is not accepted"
    else:
        msg = f"the key in {label} is neither an elliptic-curve nor an RSA key"
    hint = f"Accepted are RSA keys of {_SMALLEST_RSA_KEY} bits or more, and {', '.join(CURVES)}."
    raise refused(msg, hint)


def _check_match(chain: Sequence[Certificate], key: Any, label: str, key_label: str) -> None:
    public = key.public_key()
    matches = [each.public_key == public for each in chain]
    if matches[0]:
        return
    if any(matches):
        msg = f"the chain in {label} is not in its order: the certificate of the key comes later"
        raise refused(msg, "One's own certificate comes first, then each one's signer.")
    msg = f"the private key in {key_label} is not that of the certificate in {label}"
    raise refused(msg, "The two have to be made together.")


def _check_validity(certificates: Sequence[Certificate], label: str) -> None:
    """Refuse what is not valid now, and warn once of what will not be for long."""
    now = datetime.now(UTC)
    for each in certificates:
        if now > each.not_after:
            msg = f"the certificate of {each.subject} in {label} expired on {_date(each.not_after)}"
            raise refused(msg, "Put a new one in its place.")
        if now < each.not_before:
            msg = f"the certificate of {each.subject} in {label} is not valid before "
            msg += _date(each.not_before)
            raise refused(msg, "The clock of this machine may be wrong.")
    soonest = min(certificates, key=lambda each: each.not_after)
    if soonest.expires_in < _SOON:
        logger.warning(
            "%s: the certificate of %s expires on %s",
            label,
            soonest.subject,
            _date(soonest.not_after),
        )


def _date(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
