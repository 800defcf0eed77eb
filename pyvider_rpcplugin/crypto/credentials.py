"""Who one side of a connection is and whom it trusts; and how the settings decide on that.

`host_tls` and `plugin_tls` read the settings. What they give says what goes to the other side (the
certificate of AutoMTLS), and has the `Credentials` that each new connection asks for its context.
"""

from __future__ import annotations

import functools
import logging
import ssl
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, final

from pyvider_rpcplugin.exception import ConfigError, SecurityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto._generated import GeneratedCertificate
    from pyvider_rpcplugin.crypto._source import PemSource

__all__ = ["Credentials", "HostTLS", "Mode", "PluginTLS", "host_tls", "plugin_tls"]

logger: logging.Logger = logging.getLogger(__name__)

_SERVER_NAME = "localhost"


class Mode(StrEnum):
    """How a connection is made secure."""

    PLAIN = "plain"
    AUTO = "automatic mutual TLS"
    OWN = "TLS with certificates of one's own"
    GIVEN = "TLS with a context of one's own"


@final
class Credentials:
    """Gives each new connection its context, and says what is checked after the handshake.

    Args:
        make: Makes the context; called again when one of `files` has changed.
        files: What the context is made from.
        pinned: The DER of the only certificate that the peer may have.
        server_hostname: The name that a client wants to find in the server's certificate.
        make_reversed: Makes the context for connections that begin at the other end.

    Raises:
        SecurityError: The context cannot be made.
    """

    __slots__ = (
        "_context",
        "_files",
        "_make",
        "_make_reversed",
        "_seen",
        "pinned",
        "server_hostname",
    )

    def __init__(
        self,
        make: Callable[[], ssl.SSLContext],
        *,
        files: Sequence[PemSource] = (),
        pinned: bytes | None = None,
        server_hostname: str = _SERVER_NAME,
        make_reversed: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self.pinned: bytes | None = pinned
        self.server_hostname: str = server_hostname
        self._make = make
        self._make_reversed = make_reversed
        self._files = tuple(file for file in files if file.path is not None)
        # Before the files are read: what changes meanwhile is noticed the next time.
        self._seen = self._stamps()
        self._context = make()

    def reversed(self) -> Credentials:
        """The same certificates for connections that the other side begins, or this one accepts.

        Raises:
            SecurityError: There are none for that: a context of the caller's own has one role, and
                who has no certificate cannot be connected to.
        """
        if self._make_reversed is None:
            msg = "there is no certificate for connections in the other direction"
            hint = "AutoMTLS has them; so do settings with a certificate, a key, and whom to trust."
            raise SecurityError(msg, hint, phase="tls")
        return Credentials(self._make_reversed, files=self._files, pinned=self.pinned)

    def context(self) -> ssl.SSLContext:
        """The context for a new connection, made from the files as they are now.

        While they cannot be used (a key that is replaced a moment after its certificate) the
        last good ones stay in use, and each new state of the files is one warning.
        """
        if self._files and (stamps := self._stamps()) != self._seen:
            self._seen = stamps
            try:
                self._context = self._make()
            except SecurityError as error:
                logger.warning("the certificates of before stay in use: %s", error.message)
        return self._context

    def _stamps(self) -> list[tuple[int, ...]]:
        return [file.stamp() for file in self._files]


class HostTLS(Protocol):
    """What a host does about TLS, decided before it starts a plugin.

    Attributes:
        mode: How the connection will be made secure.
        certificate: The PEM that the plugin has to be told, for AutoMTLS; else None.
        own: That certificate with its key.
    """

    mode: Mode
    certificate: str | None
    own: GeneratedCertificate | None

    def prepare(self) -> None:
        """Make what `credentials` needs and what can be made before the plugin has answered."""

    def for_plugin(self) -> bytes | None:
        """Make the certificate and the key of a plugin, another one each time, as octets.

        None where the plugin needs none of this host.
        """

    def credentials(self, answer: bytes | None) -> Credentials | None:
        """What to connect with; None for a plain connection.

        Args:
            answer: The DER of the certificate in the plugin's handshake line, if there is one.

        Raises:
            SecurityError: The plugin sent none although it must, or one unasked.
        """


class _Auto:
    mode = Mode.AUTO

    def __init__(self, settings: Settings) -> None:
        from pyvider_rpcplugin.crypto._template import (  # noqa: PLC0415 - see the package
            auto_certificate,
        )

        self._kind = settings.cert_curve, settings.cert_validity_days
        self._own = auto_certificate(*self._kind)
        self.own: GeneratedCertificate | None = self._own
        self.certificate: str | None = self._own.pem
        self._begun: ssl.SSLContext | None = None

    def prepare(self) -> None:
        from pyvider_rpcplugin.crypto.contexts import (  # noqa: PLC0415 - see the package
            begin_client_context,
        )

        self._begun = begin_client_context(self._own)

    def for_plugin(self) -> bytes | None:
        from pyvider_rpcplugin.crypto._handed import pack  # noqa: PLC0415 - see the package
        from pyvider_rpcplugin.crypto._template import (  # noqa: PLC0415 - see the package
            make_certificate,
        )

        return pack(make_certificate(*self._kind), self._kind[1])

    def credentials(self, answer: bytes | None) -> Credentials | None:
        from pyvider_rpcplugin.crypto.contexts import (  # noqa: PLC0415 - see the package
            auto_client_context,
            auto_server_context,
        )

        if answer is None:
            msg = "the plugin does not use automatic mutual TLS: its handshake line has no "
            msg += "certificate"
            hint = "Turn PLUGIN_AUTO_MTLS on in the plugin; off in the host means no protection."
            raise SecurityError(msg, hint, phase="handshake")
        own = self._own
        begun, self._begun = self._begun, None
        try:
            return Credentials(
                lambda: auto_client_context(own, answer, begun),
                pinned=answer,
                make_reversed=lambda: auto_server_context(own, answer),
            )
        except SecurityError as error:
            msg = "the certificate in the plugin's handshake line is none that can be read"
            raise SecurityError(msg, error.hint, phase="handshake") from None


class _Fixed:
    """A plain connection, or one with what the host was given: known before the plugin starts."""

    certificate: str | None = None
    own: GeneratedCertificate | None = None

    def __init__(self, mode: Mode, credentials: Credentials | None) -> None:
        self.mode = mode
        self._credentials = credentials

    def prepare(self) -> None:
        pass

    def for_plugin(self) -> bytes | None:
        return None

    def credentials(self, answer: bytes | None) -> Credentials | None:
        if answer is not None:
            msg = "the plugin sent a certificate that it was not asked for: "
            msg += f"this host's connection is {self.mode}"
            if self.mode is Mode.PLAIN:
                hint = "Turn PLUGIN_AUTO_MTLS on in the host, or off in the plugin."
            else:
                hint = "The plugin has to use certificates of its own too, or a context."
            raise SecurityError(msg, hint, phase="handshake")
        return self._credentials


def host_tls(
    settings: Settings, tls: ssl.SSLContext | None = None, *, server_hostname: str = _SERVER_NAME
) -> HostTLS:
    """Decide what a host does; to be called before each start, since certificates may change.

    Args:
        settings: The host's.
        tls: A context of the caller's, which goes before everything else.
        server_hostname: The name that the server's certificate has to bear, where certificates
            are not made for one run.

    Raises:
        ConfigError: `tls` is not a client's context.
        SecurityError: Certificates cannot be used, or some are missing.
    """
    if tls is not None:
        _check_context(tls, ssl.PROTOCOL_TLS_SERVER)
        return _Fixed(Mode.GIVEN, Credentials(lambda: tls, server_hostname=server_hostname))
    own = _host_credentials(settings, server_hostname)
    if own is not None:
        return _Fixed(Mode.OWN, own)
    if not settings.auto_mtls:
        return _Fixed(Mode.PLAIN, None)
    return _Auto(settings)


@final
class PluginTLS:
    """What a plugin does about TLS.

    Attributes:
        mode: How connections are made secure.
        credentials: What to accept connections with; None for plain ones.
        certificate: The DER that goes into the handshake line, for AutoMTLS; else None.
    """

    __slots__ = ("certificate", "credentials", "mode")

    def __init__(
        self, mode: Mode, credentials: Credentials | None, certificate: bytes | None = None
    ) -> None:
        self.mode: Mode = mode
        self.credentials: Credentials | None = credentials
        self.certificate: bytes | None = certificate


def plugin_tls(
    settings: Settings,
    tls: ssl.SSLContext | None = None,
    *,
    standalone: bool = False,
    handed: bytes | None = None,
) -> PluginTLS:
    """Decide what a plugin does.

    Args:
        settings: The plugin's, with what its host told it.
        tls: A context of the caller's, which goes before everything else.
        standalone: There is no host.
        handed: What the host has made for this plugin (`HostTLS.for_plugin`), if it did.

    Raises:
        ConfigError: `tls` is not a server's context.
        SecurityError: Certificates cannot be used, some are missing, or the host did not send one
            although it has to.
    """
    if tls is not None:
        _check_context(tls, ssl.PROTOCOL_TLS_CLIENT)
        return PluginTLS(Mode.GIVEN, Credentials(lambda: tls))
    own = _plugin_credentials(settings)
    if own is not None:
        return PluginTLS(Mode.OWN, own)
    host = None if standalone else settings.host_certificate
    if settings.auto_mtls and host is not None:
        return _answer(settings, host, handed)
    if settings.auto_mtls == "required":
        msg = "PLUGIN_AUTO_MTLS=required, but "
        msg += "there is no host" if standalone else "the host sent no certificate"
        hint = "Give certificates or tls=, or turn automatic mutual TLS on in the host."
        raise SecurityError(msg, hint, phase="tls")
    if settings.auto_mtls:
        # Hosts in Go use it only when their program says so.
        reason = "no certificates were given" if standalone else "the host did not ask for TLS"
        logger.warning("connections are plain: %s", reason)
    return PluginTLS(Mode.PLAIN, None)


def _answer(settings: Settings, host: str, handed: bytes | None) -> PluginTLS:
    from pyvider_rpcplugin.crypto.contexts import (  # noqa: PLC0415 - see the package
        auto_client_context,
        auto_server_context,
        peer_certificate,
    )

    peer = peer_certificate(host)
    own = _own_certificate(settings, handed)
    try:
        credentials = Credentials(
            lambda: auto_server_context(own, peer),
            pinned=peer,
            make_reversed=lambda: auto_client_context(own, peer),
        )
    except SecurityError as error:
        msg = "the certificate of the host, in PLUGIN_CLIENT_CERT, is none that can be read"
        raise SecurityError(msg, error.hint, phase="tls") from None
    return PluginTLS(Mode.AUTO, credentials, own.der)


def _own_certificate(settings: Settings, handed: bytes | None) -> GeneratedCertificate:
    """A plugin's own: what its host has made for it, if that is as the settings want it."""
    kind = settings.cert_curve, settings.cert_validity_days
    if handed is not None:
        from pyvider_rpcplugin.crypto._handed import unpack  # noqa: PLC0415 - see the package

        if found := unpack(handed, *kind):
            return found
        logger.debug("the certificate that the host has made is of another kind than is wanted")
    from pyvider_rpcplugin.crypto._template import (  # noqa: PLC0415 - loads a large library
        auto_certificate,
    )

    return auto_certificate(*kind)


def _check_context(tls: object, other_side: int) -> None:
    if not isinstance(tls, ssl.SSLContext):
        msg = f"tls= takes an ssl.SSLContext, not {type(tls).__name__}"
        hint = "Leave it out for what the settings say about certificates."
        raise ConfigError(msg, hint, phase="settings")
    if tls.protocol == other_side:
        is_host = other_side == ssl.PROTOCOL_TLS_SERVER
        wanted = "PROTOCOL_TLS_CLIENT" if is_host else "PROTOCOL_TLS_SERVER"
        msg = "tls= has a context that is made for the other side of the connection"
        raise ConfigError(msg, f"A {_side(is_host)} needs ssl.{wanted}.", phase="settings")


def _side(is_host: bool) -> str:
    return "host" if is_host else "plugin"


# --- certificates of one's own ---------------------------------------------------------------


def _host_credentials(settings: Settings, server_hostname: str) -> Credentials | None:
    names = ("PLUGIN_CLIENT_CERT", "PLUGIN_CLIENT_KEY")
    given = (settings.client_cert, settings.client_key)
    roots = _roots(settings, "server_root_certs")
    if not any(given) and roots is None:
        return None
    _check_pair(given, names)
    if roots is None:
        msg = "the host has a certificate of its own, but nothing says which plugins to trust"
        raise SecurityError(msg, "Set PLUGIN_SERVER_ROOT_CERTS or PLUGIN_CA_CERT.", phase="tls")
    trusted = roots

    def make(*, as_server: bool = False) -> ssl.SSLContext:
        from pyvider_rpcplugin.crypto._identity import (  # noqa: PLC0415 - loads a large library
            load_identity,
            load_roots,
        )
        from pyvider_rpcplugin.crypto.contexts import (  # noqa: PLC0415 - see the package
            client_context,
            server_context,
        )

        identity = load_identity(*given, settings=names) if any(given) else None
        roots = load_roots(trusted[1], setting=trusted[0])
        if as_server and identity is not None:
            return server_context(identity, roots)
        return client_context(roots, identity)

    files = _sources((*zip(names, given, strict=True), trusted))
    return Credentials(
        make,
        files=files,
        server_hostname=server_hostname,
        make_reversed=functools.partial(make, as_server=True) if any(given) else None,
    )


def _plugin_credentials(settings: Settings) -> Credentials | None:
    names = ("PLUGIN_SERVER_CERT", "PLUGIN_SERVER_KEY")
    given = (settings.server_cert, settings.server_key)
    if not any(given) and (not settings.client_root_certs):
        # PLUGIN_CA_CERT alone may be what the host has for itself, in an environment that the
        # plugin shares; but it must not end in a plain connection.
        if settings.ca_cert and not (settings.host_certificate and settings.auto_mtls):
            msg = "PLUGIN_CA_CERT is set, but the plugin has no certificate to show"
            raise SecurityError(
                msg, "Set PLUGIN_SERVER_CERT and PLUGIN_SERVER_KEY too.", phase="tls"
            )
        return None
    _check_pair(given, names)
    if not any(given):
        msg = "PLUGIN_CLIENT_ROOT_CERTS is set, but the plugin has no certificate to show"
        raise SecurityError(msg, "Set PLUGIN_SERVER_CERT and PLUGIN_SERVER_KEY too.", phase="tls")
    roots = _roots(settings, "client_root_certs")
    if roots is None:
        msg = "the plugin has a certificate of its own, but nothing says which hosts to trust"
        hint = "Set PLUGIN_CLIENT_ROOT_CERTS or PLUGIN_CA_CERT; tls= takes a context that lets "
        raise SecurityError(msg, hint + "anybody in.", phase="tls")
    trusted = roots

    def make(*, as_client: bool = False) -> ssl.SSLContext:
        from pyvider_rpcplugin.crypto._identity import (  # noqa: PLC0415 - loads a large library
            load_identity,
            load_roots,
        )
        from pyvider_rpcplugin.crypto.contexts import (  # noqa: PLC0415 - see the package
            client_context,
            server_context,
        )

        identity = load_identity(*given, settings=names)
        roots = load_roots(trusted[1], setting=trusted[0])
        return client_context(roots, identity) if as_client else server_context(identity, roots)

    files = _sources((*zip(names, given, strict=True), trusted))
    return Credentials(make, files=files, make_reversed=functools.partial(make, as_client=True))


def _sources(given: Iterable[tuple[str, str]]) -> list[PemSource]:
    from pyvider_rpcplugin.crypto._source import PemSource  # noqa: PLC0415 - most starts have none

    return [PemSource(setting, value) for setting, value in given]


def _roots(settings: Settings, name: str) -> tuple[str, str] | None:
    """Which setting says whom to trust, and its value."""
    own: str = getattr(settings, name)
    if own:
        return f"PLUGIN_{name.upper()}", own
    return ("PLUGIN_CA_CERT", settings.ca_cert) if settings.ca_cert else None


def _check_pair(given: tuple[str, str], names: tuple[str, str]) -> None:
    if bool(given[0]) != bool(given[1]):
        there, missing = names if given[0] else reversed(names)
        msg = f"{there} is set, but {missing} is not"
        raise SecurityError(msg, "Each needs the other one.", phase="tls")
