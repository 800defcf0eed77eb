"""One `ssl.SSLContext` for each role, and what is checked beyond what `ssl` checks."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pyvider_rpcplugin.crypto._source import decode, is_one_der_element, refused

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyvider_rpcplugin.crypto._generated import GeneratedCertificate
    from pyvider_rpcplugin.crypto._identity import Identity, Roots
    from pyvider_rpcplugin.crypto._recorded import RecordedIdentity

__all__ = [
    "auto_client_context",
    "auto_server_context",
    "begin_client_context",
    "client_context",
    "peer_certificate",
    "require_certificate",
    "require_h2",
    "server_context",
]

_ALPN = "h2"

# TLS 1.2 (for 1.3 there are no others): key exchange with forward secrecy, and a cipher that
# HTTP/2 does not forbid (RFC 9113, section 9.2.2). Level 2 refuses keys below 112 bits.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"

# Python sets it for the sake of peers that close without a word; the stream looks itself.
_IGNORE_UNEXPECTED_EOF: int = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


def auto_server_context(
    own: GeneratedCertificate | RecordedIdentity, peer: bytes
) -> ssl.SSLContext:
    """The plugin's side of AutoMTLS: only the host with this certificate gets in.

    Args:
        own: The certificate of this process.
        peer: The DER of the host's, of any curve.

    Raises:
        SecurityError: The peer's is no certificate.
    """
    return _trusting(_showing(ssl.PROTOCOL_TLS_SERVER, own), peer)


def auto_client_context(
    own: GeneratedCertificate | RecordedIdentity | None,
    peer: bytes,
    begun: ssl.SSLContext | None = None,
) -> ssl.SSLContext:
    """The host's side of AutoMTLS: only the plugin with this certificate is talked to.

    Args:
        own: The certificate of this process; None where the plugin asks for none.
        peer: The DER of the plugin's, of any curve.
        begun: What `begin_client_context` gave for the same `own`, which becomes the result.

    Raises:
        SecurityError: The peer's is no certificate.
    """
    return _trusting(begun or begin_client_context(own), peer)


def begin_client_context(own: GeneratedCertificate | RecordedIdentity | None) -> ssl.SSLContext:
    """What of the host's side can be made before it knows the plugin's certificate.

    It trusts nobody.
    """
    return _showing(ssl.PROTOCOL_TLS_CLIENT, own)


def server_context(identity: Identity, roots: Roots) -> ssl.SSLContext:
    """A server with its own certificate; clients need one that `roots` have signed."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    _load_identity(context, identity.pem)
    context.load_verify_locations(cadata=roots.der)
    return context


def client_context(roots: Roots, identity: Identity | None = None) -> ssl.SSLContext:
    """A client that talks to servers which `roots` have signed, and shows its own certificate."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if identity is not None:
        _load_identity(context, identity.pem)
    context.load_verify_locations(cadata=roots.der)
    return context


def _showing(protocol: int, own: GeneratedCertificate | RecordedIdentity | None) -> ssl.SSLContext:
    context = _context(protocol)
    if own is not None:
        _load_identity(context, f"{own.pem}{own.key_pem}".encode())
    return context


def _trusting(context: ssl.SSLContext, peer: bytes) -> ssl.SSLContext:
    if is_one_der_element(peer):
        with suppress(ssl.SSLError):
            context.load_verify_locations(cadata=peer)
            return context
    msg = "the peer's certificate is none that can be read"
    raise refused(msg, "It may be damaged or cut off.")


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([_ALPN])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~_IGNORE_UNEXPECTED_EOF
    context.verify_mode = ssl.CERT_REQUIRED
    # What is trusted is trusted, be it signed by others or not: go-plugin's peers may bring a
    # certificate that is no authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_TRUSTED_FIRST
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A connection lives as long as its process: there is nothing to resume.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


# --- the private key -------------------------------------------------------------------------


def _load_identity(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a chain and its key, which `ssl` takes from a file only.

    Raises:
        SecurityError: OpenSSL does not take them.
    """
    with _as_file(pem) as path:
        try:
            # The password: OpenSSL must never ask the terminal for one.
            context.load_cert_chain(path, password="")
        except ssl.SSLError as error:
            reason = (error.reason or "no reason given").lower().replace("_", " ")
            msg = f"OpenSSL does not accept the certificate or its key: {reason}"
            raise refused(msg, "The policy of this system may ask for a stronger key.") from None


@contextmanager
def _as_file(data: bytes) -> Generator[str]:
    """Give `data` a path that nobody else can read, for the length of a block."""
    number = _memory_file(data)
    if number is not None:
        try:
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
        return
    import tempfile  # noqa: PLC0415 - seldom needed

    folder = tempfile.mkdtemp(prefix="pyvider-rpcplugin-")
    path = os.path.join(folder, "identity")
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "wb") as file:
            file.write(data)
        yield path
    finally:
        with suppress(OSError):
            os.unlink(path)
        with suppress(OSError):
            os.rmdir(folder)


def _memory_file(data: bytes) -> int | None:
    """Put `data` into a file that exists in memory only; None where that cannot be had."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        number = os.memfd_create("identity", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(number, data)
        # It can be had, but not by a path, where /proc is not mounted.
        if os.path.exists(f"/proc/self/fd/{number}"):
            return number
    except BaseException:
        os.close(number)
        raise
    os.close(number)
    return None


# --- checks ----------------------------------------------------------------------------------

_CERTIFICATE = re.compile(
    rb"\s*-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----\s*", re.DOTALL
)


def peer_certificate(pem: str) -> bytes:
    """The DER of the one certificate that a host hands its plugin as PEM.

    Raises:
        SecurityError: It is not one certificate.
    """
    from pyvider_rpcplugin.crypto._source import PemBlock  # noqa: PLC0415 - a plugin's only

    data = pem.encode(errors="replace")
    match = _CERTIFICATE.fullmatch(data)
    der = decode(PemBlock("CERTIFICATE", data, match[1])) if match else None
    if der is None or not is_one_der_element(der):
        msg = "the certificate of the host, in PLUGIN_CLIENT_CERT, is none that can be read"
        hint = "It has to be one certificate as PEM text, newlines included."
        raise refused(msg, hint)
    return der


def require_h2(connection: ssl.SSLObject | ssl.SSLSocket) -> None:
    """Check that both sides have agreed to speak HTTP/2.

    Raises:
        SecurityError: They have not: the other side may be anything.
    """
    if connection.selected_alpn_protocol() != _ALPN:
        msg = "the peer did not agree to speak HTTP/2 (TLS's ALPN extension)"
        hint = "Both sides have to offer it: context.set_alpn_protocols(['h2'])."
        raise refused(msg, hint)


def require_certificate(connection: ssl.SSLObject | ssl.SSLSocket, der: bytes) -> None:
    """Check that the peer's certificate is this one, and not one that this one has signed.

    Raises:
        SecurityError: It is another one.
    """
    if connection.getpeercert(binary_form=True) != der:
        msg = "the peer's certificate is not the one that it announced"
        raise refused(msg, "Something else may have taken its place at the same address.")
