"""The certificates in the record of a plugin that runs already."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from pyvider_rpcplugin.crypto._source import refused
from pyvider_rpcplugin.crypto.contexts import auto_client_context, auto_server_context
from pyvider_rpcplugin.crypto.credentials import Credentials

__all__ = ["RecordedIdentity", "recorded_credentials"]


class RecordedIdentity(NamedTuple):
    """A certificate and its private key, as PEM."""

    pem: str
    key_pem: str

    def __repr__(self) -> str:
        return "<RecordedIdentity>"


def recorded_credentials(
    server_cert: str, client_cert: str | None = None, client_key: str | None = None
) -> Credentials:
    """What to connect with to the plugin that has this certificate, and no other one.

    Args:
        server_cert: The plugin's, as PEM.
        client_cert: The certificate of the host that the plugin trusts, as PEM, if it asks for one.
        client_key: The private key of that.

    Raises:
        SecurityError: They cannot be used.
    """
    try:
        answer = ssl.PEM_cert_to_DER_cert(server_cert.strip())
    except ValueError:
        msg = "the plugin's certificate in its record is none that can be read"
        raise refused(msg, "It has to be one certificate as PEM.") from None
    if client_cert is None or client_key is None:
        return Credentials(lambda: auto_client_context(None, answer), pinned=answer)
    own = RecordedIdentity(client_cert, client_key)
    return Credentials(
        lambda: auto_client_context(own, answer),
        pinned=answer,
        make_reversed=lambda: auto_server_context(own, answer),
    )
