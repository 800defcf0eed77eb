"""The certificate that a host or a plugin makes for one run.

The library that makes certificates of any shape takes longer to import than the rest of a plugin's
start. This is one certificate of one shape: everything but the key, the serial number and the dates
is the same each time, so the elliptic-curve module is all that is needed to fill it in and sign it.

    Certificate ::= SEQUENCE {
        SEQUENCE { version, serial, algorithm, issuer, validity, subject, key, extensions },
        algorithm, signature }

(RFC 5280, section 4.1; the private key is an ECPrivateKey of RFC 5915.)
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pyvider_rpcplugin.crypto._generated import GeneratedCertificate
from pyvider_rpcplugin.exception import ConfigError

__all__ = ["CURVES", "auto_certificate", "make_certificate"]

# A peer whose clock is a little behind must not think that the certificate is not valid yet.
_EARLIER = 30
_DAY = 86_400

# Universal tags of ASN.1, and the context-specific ones that occur here.
_INTEGER, _BIT_STRING, _OCTET_STRING, _OID = 0x02, 0x03, 0x04, 0x06
_UTF8_STRING, _UTC_TIME, _GENERALIZED_TIME = 0x0C, 0x17, 0x18
_SEQUENCE, _SET = 0x30, 0x31
_FIRST, _SECOND, _FOURTH = 0xA0, 0xA1, 0xA3
_DNS_NAME = 0x82
_TRUE = b"\x01\x01\xff"


def _der(tag: int, *parts: bytes) -> bytes:
    """One element: its tag, the length of its content, its content."""
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def _integer(value: int) -> bytes:
    # One bit more than the number has: the first bit is the sign.
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bit_string(content: bytes) -> bytes:
    return _der(_BIT_STRING, b"\0", content)  # no unused bits


def _oid(encoded: str) -> bytes:
    return _der(_OID, bytes.fromhex(encoded))


def _time(seconds: int) -> bytes:
    """A date, in the form that RFC 5280 (section 4.1.2.5) wants for its year."""
    date = time.gmtime(seconds)
    if 1950 <= date.tm_year < 2050:
        return _der(_UTC_TIME, time.strftime("%y%m%d%H%M%SZ", date).encode())
    return _der(_GENERALIZED_TIME, time.strftime("%Y%m%d%H%M%SZ", date).encode())


class _Curve(NamedTuple):
    curve: ec.EllipticCurve
    oid: bytes
    hash: hashes.HashAlgorithm
    signature: bytes


# The hash goes with the curve's strength, as everybody else's does.
CURVES = {
    "secp256r1": _Curve(
        ec.SECP256R1(),
        _oid("2a8648ce3d030107"),
        hashes.SHA256(),
        _der(_SEQUENCE, _oid("2a8648ce3d040302")),
    ),
    "secp384r1": _Curve(
        ec.SECP384R1(),
        _oid("2b81040022"),
        hashes.SHA384(),
        _der(_SEQUENCE, _oid("2a8648ce3d040303")),
    ),
    "secp521r1": _Curve(
        ec.SECP521R1(),
        _oid("2b81040023"),
        hashes.SHA512(),
        _der(_SEQUENCE, _oid("2a8648ce3d040304")),
    ),
}
"""The curves of keys that are made, by the names that the settings have for them."""


class _Signature(ec.ECDSA):
    """ECDSA without what its own constructor loads: a look at features that are not used here."""

    def __init__(self, algorithm: hashes.HashAlgorithm) -> None:
        self._hash = algorithm

    @property
    def algorithm(self) -> Any:
        return self._hash

    @property
    def deterministic_signing(self) -> bool:
        return False


def _name(organisation: str, common_name: str) -> bytes:
    parts = (("55040a", organisation), ("550403", common_name))
    return _der(
        _SEQUENCE,
        *(
            _der(_SET, _der(_SEQUENCE, _oid(oid), _der(_UTF8_STRING, text.encode())))
            for oid, text in parts
        ),
    )


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return _der(_SEQUENCE, _oid(oid), _TRUE if critical else b"", _der(_OCTET_STRING, value))


_VERSION_3 = _der(_FIRST, _integer(2))
_EC_PUBLIC_KEY = _oid("2a8648ce3d0201")
_ISSUER_AND_SUBJECT = _name("pyvider-rpcplugin", "localhost")

_FIXED_EXTENSIONS = (
    # digitalSignature (bit 0), keyEncipherment (2), keyAgreement (4), keyCertSign (5); the two
    # lowest bits of the octet are not used.
    _extension("551d0f", _der(_BIT_STRING, b"\x02", bytes([0b10101100])), critical=True),
    # clientAuth and serverAuth: the pair of certificates serves connections in both directions.
    _extension("551d25", _der(_SEQUENCE, _oid("2b06010505070302"), _oid("2b06010505070301"))),
    # It is its own authority.
    _extension("551d13", _der(_SEQUENCE, _TRUE), critical=True),
    _extension("551d11", _der(_SEQUENCE, _der(_DNS_NAME, b"localhost"))),
)
_SUBJECT_KEY_IDENTIFIER = "551d0e"


def make_certificate(
    curve: str = "secp256r1", validity_days: int = 10950, *, now: float | None = None
) -> GeneratedCertificate:
    """Make a key, and a certificate for it that it signs itself.

    Args:
        curve: `secp256r1`, `secp384r1` or `secp521r1`.
        validity_days: How long it is valid.
        now: The time, in seconds since 1970, in place of the clock's.

    Raises:
        ConfigError: There is no such curve.
    """
    if curve not in CURVES:
        msg = f"there is no curve {curve!r}: accepted is one of {', '.join(CURVES)}"
        raise ConfigError(msg, phase="settings")
    kind = CURVES[curve]
    key = ec.generate_private_key(kind.curve)
    width = (kind.curve.key_size + 7) // 8
    numbers = key.private_numbers()
    public = numbers.public_numbers
    point = b"\x04" + public.x.to_bytes(width, "big") + public.y.to_bytes(width, "big")

    not_before = int(time.time() if now is None else now) - _EARLIER
    not_after = not_before + _EARLIER + validity_days * _DAY
    # RFC 7093, section 2, method 1. Only to tell keys apart: no security rests on it.
    digest = hashes.Hash(hashes.SHA256())
    digest.update(point)
    identifier = digest.finalize()[:20]
    signed_part = _der(
        _SEQUENCE,
        _VERSION_3,
        _integer(_serial()),
        kind.signature,
        _ISSUER_AND_SUBJECT,
        _der(_SEQUENCE, _time(not_before), _time(not_after)),
        _ISSUER_AND_SUBJECT,
        _der(_SEQUENCE, _der(_SEQUENCE, _EC_PUBLIC_KEY, kind.oid), _bit_string(point)),
        _der(
            _FOURTH,
            _der(
                _SEQUENCE,
                *_FIXED_EXTENSIONS,
                _extension(_SUBJECT_KEY_IDENTIFIER, _der(_OCTET_STRING, identifier)),
            ),
        ),
    )
    signature = key.sign(signed_part, _Signature(kind.hash))
    der = _der(_SEQUENCE, signed_part, kind.signature, _bit_string(signature))
    key_der = _der(
        _SEQUENCE,
        _integer(1),
        _der(_OCTET_STRING, numbers.private_value.to_bytes(width, "big")),
        _der(_FIRST, kind.oid),
        _der(_SECOND, _bit_string(point)),
    )
    return GeneratedCertificate(
        der, key_der, curve=curve, not_before=not_before, not_after=not_after
    )


def _serial() -> int:
    """A random number that is positive and below 2**128."""
    while True:
        if serial := int.from_bytes(os.urandom(16), "big"):
            return serial


class _Cache:
    """The certificates of this process."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a fork: a child is another process, and nobody in it holds the lock."""
        self.lock = threading.Lock()
        self.made: dict[tuple[str, int], GeneratedCertificate] = {}


_cache = _Cache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_cache.forget)


def auto_certificate(curve: str = "secp256r1", validity_days: int = 10950) -> GeneratedCertificate:
    """The certificate of this process: made at the first call, the same one afterwards.

    A process that was forked off has one of its own, and one that runs for longer than half of
    the validity makes a new one for the connections to come. May be called from any thread.

    Raises:
        ConfigError: There is no such curve.
    """
    with _cache.lock:
        made = _cache.made.get((curve, validity_days))
        if made is None or time.time() * 2 > made.not_before + made.not_after:
            made = _cache.made[curve, validity_days] = make_certificate(curve, validity_days)
        return made
