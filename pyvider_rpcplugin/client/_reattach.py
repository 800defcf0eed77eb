"""Plugins that run already: their records, and how one is attached to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from pyvider_rpcplugin.crypto import Mode, host_tls, recorded_credentials
from pyvider_rpcplugin.exception import ConfigError, HandshakeError, RPCPluginError, SecurityError
from pyvider_rpcplugin.handshake import (
    CORE_VERSION,
    HandshakeRecord,
    ReattachConfig,
    format_versions,
)
from pyvider_rpcplugin.process import attach_process

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from pyvider_rpcplugin.config import Settings
    from pyvider_rpcplugin.crypto import Credentials, HostTLS
    from pyvider_rpcplugin.process import AttachedRunner, PluginProcess

    from ._log import PluginLog


def checked_record(value: ReattachConfig | Mapping[str, Any] | str | bytes) -> ReattachConfig:
    """Return the record in whatever form it was given.

    Raises:
        ConfigError: It is none.
    """
    given: Any = value
    if isinstance(given, ReattachConfig):
        return given
    if isinstance(given, str | bytes):
        return ReattachConfig.from_json(given)
    if isinstance(given, Mapping):
        return ReattachConfig.from_dict(cast("Mapping[str, Any]", given))
    msg = (
        f"reattach= takes a ReattachConfig, its dictionary or its JSON, not {type(given).__name__}"
    )
    raise ConfigError(msg, phase="attach")


def attach(
    record: ReattachConfig, runner: Callable[[Any], AbstractAsyncContextManager[Any]] | None
) -> AbstractAsyncContextManager[AttachedRunner]:
    """What watches the plugin and ends it."""
    return context_of(runner or attach_process, record)


def context_of(
    runner: Callable[[Any], AbstractAsyncContextManager[Any]], argument: object
) -> AbstractAsyncContextManager[Any]:
    """Call a runner.

    Raises:
        ConfigError: What it gives is no async context manager.
    """
    context: Any = runner(argument)
    if not hasattr(context, "__aenter__"):
        msg = f"the runner gave a {type(context).__name__}, and not an async context manager"
        raise ConfigError(msg, "Decorate it with contextlib.asynccontextmanager.", phase="launch")
    found: AbstractAsyncContextManager[Any] = context
    return found


def handshake_of(record: ReattachConfig, settings: Settings) -> HandshakeRecord:
    """Return what the plugin's handshake line said, as far as the record tells.

    Raises:
        HandshakeError: It is nothing that this host accepts.
    """
    versions = settings.protocol_versions
    version = record.protocol_version
    if not version and len(versions) == 1:
        # Records of hosts in Go do not tell. Then it can only be meant.
        version = versions[0]
    if version and version not in versions:
        msg = f"the plugin serves version {version} of the application's protocol, this host "
        msg += f"speaks {format_versions(versions) or 'none'}"
        raise HandshakeError(msg, phase="attach")
    if record.network not in settings.client_transports:
        msg = f"the plugin listens on a {record.network} socket, this host accepts "
        msg += f"{', '.join(settings.client_transports) or 'none'}"
        hint = "PLUGIN_CLIENT_TRANSPORTS says what a host accepts."
        raise HandshakeError(msg, hint, phase="attach")
    return HandshakeRecord(CORE_VERSION, version, record.network, record.address)


def credentials_of(
    record: ReattachConfig, settings: Settings, tls: ssl.SSLContext | None, log: PluginLog
) -> Credentials | None:
    """What to connect with: by the record, or by what this host was given.

    Raises:
        SecurityError: They cannot be used, or there are none and there have to be.
    """
    if tls is None and record.server_cert is not None:
        return recorded_credentials(record.server_cert, record.client_cert, record.client_key)
    found = host_tls(msgspec.structs.replace(settings, auto_mtls=False), tls)
    if found.mode is Mode.PLAIN:
        if settings.auto_mtls == "required":
            msg = "PLUGIN_AUTO_MTLS=required, but the plugin's record has no certificate"
            raise SecurityError(msg, phase="tls")
        if settings.auto_mtls:
            log.warning("the connection to the plugin is plain: its record has no certificate")
    return found.credentials(None)


def record_of(
    record: HandshakeRecord | None,
    process: PluginProcess | None,
    tls: HostTLS | None,
    *,
    shared: bool,
) -> ReattachConfig:
    """Return the record of a plugin that was started here.

    Raises:
        RPCPluginError: It cannot be attached to.
    """
    if record is None or process is None:
        msg = "there is no record of this plugin: it was not started by this host"
        raise RPCPluginError(msg, phase="attach")
    if shared:
        msg = "nobody else can attach to this plugin: it has one connection, and this host uses it"
        raise RPCPluginError(msg, "Do without PLUGIN_MULTIPLEX_GRPC.", phase="attach")
    from pyvider_rpcplugin.process._attached import started  # noqa: PLC0415 - private of ours

    own = None if tls is None or record.certificate is None else tls.own
    certificate: str | None = None
    if record.certificate is not None:
        import ssl  # noqa: PLC0415 - loaded by who has certificates

        certificate = ssl.DER_cert_to_PEM_cert(record.certificate)
    pid = process.pid or 0
    return ReattachConfig(
        network=record.network,
        address=record.address,
        pid=pid,
        protocol_version=record.app_version,
        server_cert=certificate,
        client_cert=None if own is None else own.pem,
        client_key=None if own is None else own.key_pem,
        started=started(pid),
        group=bool(getattr(process.runner, "leads_group", False)),
    )
