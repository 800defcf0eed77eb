"""A certificate that was made for one run, and its private key: what they are, not how they are made.

A plugin that was handed them by its host needs no more than this.
"""

from __future__ import annotations

import time
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from pyvider_rpcplugin.crypto._certificate import Certificate

__all__ = ["GeneratedCertificate", "pem_text"]


@final
class GeneratedCertificate:
    """A certificate that was made for this process, and its private key.

    Attributes:
        der: The certificate.
        curve: The name of its key's curve.
        not_before: When its validity begins, in seconds since 1970.
        not_after: When it ends.
    """

    __slots__ = ("_key_der", "curve", "der", "not_after", "not_before")

    def __init__(
        self, der: bytes, key_der: bytes, *, curve: str, not_before: int, not_after: int
    ) -> None:
        self.der: bytes = der
        self.curve: str = curve
        self.not_before: int = not_before
        self.not_after: int = not_after
        self._key_der = key_der

    @property
    def pem(self) -> str:
        """The certificate as PEM text, with a newline at its end."""
        return pem_text("CERTIFICATE", self.der)

    @property
    def key_der(self) -> bytes:
        """The private key (SEC1)."""
        return self._key_der

    @property
    def key_pem(self) -> str:
        """The private key as PEM text (SEC1)."""
        return pem_text("EC PRIVATE KEY", self._key_der)

    @property
    def certificate(self) -> Certificate:
        """The certificate, to look at; this loads a large library."""
        from pyvider_rpcplugin.crypto._certificate import (  # noqa: PLC0415 - only when used
            Certificate,
        )

        return Certificate.from_der(self.der)

    def __repr__(self) -> str:
        end = time.strftime("%Y-%m-%d", time.gmtime(self.not_after))
        return f"<GeneratedCertificate {self.curve}, valid until {end}>"

    def __reduce__(self) -> Any:
        msg = "a generated certificate cannot be pickled: its private key stays in its process"
        raise TypeError(msg)


def pem_text(label: str, der: bytes) -> str:
    """Write DER as PEM."""
    text = b2a_base64(der, newline=False).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])
