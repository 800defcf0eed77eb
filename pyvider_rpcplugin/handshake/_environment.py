"""The environment that a host gives to its plugin."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

from pyvider_rpcplugin.config import started_by_host
from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.handshake._versions import format_versions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pyvider_rpcplugin.config import Settings

# What a host sends if it has no range of its own. Zero for both would mean the same to hosts and
# plugins in Go.
_DEFAULT_PORTS = (10000, 25000)

# By these a host talks to its plugin. None is ever inherited: they are what some other host said
# to this process, or settings of this process that it passes on in its own words below.
_PROTOCOL_VARIABLES = frozenset(
    {
        "PLUGIN_PROTOCOL_VERSIONS",
        "PLUGIN_MIN_PORT",
        "PLUGIN_MAX_PORT",
        "PLUGIN_UNIX_SOCKET_DIR",
        "PLUGIN_UNIX_SOCKET_GROUP",
        "PLUGIN_MULTIPLEX_GRPC",
        "PLUGIN_OUTLIVE_HOST",
        "PLUGIN_WAIT_FOR_DEBUGGER",
        # It names a descriptor that no other process has.
        "PLUGIN_IDENTITY_PIPE",
        "PLUGIN_CLIENT_CERT",
        # The host's private key, which no plugin has any use for.
        "PLUGIN_CLIENT_KEY",
    }
)
# What the user of a host sets for its plugins, and what has to reach them therefore. In a plugin
# that is a host itself they were for that plugin: a second server on its socket, with its
# identity, or waiting for its file, would be in its way.
_OF_THIS_PLUGIN = frozenset(
    {
        "PLUGIN_SERVER_UNIX_SOCKET_PATH",
        "PLUGIN_SERVER_PORT",
        "PLUGIN_SERVER_CERT",
        "PLUGIN_SERVER_KEY",
        "PLUGIN_SHUTDOWN_FILE_PATH",
    }
)
# Given by hand, these would make the plugin do what the host does not expect.
_HOST_ALONE: Mapping[str, str] = {
    "PLUGIN_CLIENT_CERT": "client_cert",
    "PLUGIN_CLIENT_KEY": "client_key",
    "PLUGIN_MULTIPLEX_GRPC": "multiplex_grpc",
    "PLUGIN_OUTLIVE_HOST": "outlive_host",
    "PLUGIN_WAIT_FOR_DEBUGGER": "wait_for_debugger",
}


def build_environment(
    settings: Settings,
    *,
    env: Mapping[str, str] | None = None,
    inherit_env: bool | Collection[str] = True,
    versions: Collection[int] | None = None,
    certificate: str | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment for a plugin that is about to be started.

    Of three parts the later wins: what is inherited, without the words and keys of another host;
    what the caller gives; the host's own words to the plugin.

    Args:
        settings: The host's settings.
        env: What the caller adds. A whole copy of the inherited environment is fine: what would
            not be inherited is left out of it too.
        inherit_env: Whether the plugin inherits; or the names that it inherits, no others.
        versions: The versions of the application's protocol to offer; those of the settings if
            left out.
        certificate: The host's certificate as PEM, to ask for AutoMTLS.
        base: What is inherited from; the environment of the process if left out.

    Raises:
        ConfigError: A name or value cannot be in an environment, or is the host's to say.
    """
    inherited = os.environ if base is None else base
    scrubbed = set(_PROTOCOL_VARIABLES)
    if started_by_host(inherited):
        scrubbed |= _OF_THIS_PLUGIN
    wanted = _wanted_names(inherit_env)
    before = _before_unpacking(inherited)
    environment = {
        name: value
        for name, value in before.items()
        if name not in scrubbed and (wanted is None or name in wanted)
    }
    for name, value in (env or {}).items():
        text = _check_variable(name, value)
        copied = text == inherited.get(name)
        if copied and (name in scrubbed or text != before.get(name)):
            continue
        if name in _HOST_ALONE:
            message = f"{name} in env= cannot be given to a plugin: it is for the host to say"
            hint = f"The host's own setting is {_HOST_ALONE[name]}."
            raise ConfigError(message, hint, phase="settings")
        environment[name] = text
    environment |= _protocol_variables(settings, versions, certificate)
    return environment


def _protocol_variables(
    settings: Settings, versions: Collection[int] | None, certificate: str | None
) -> dict[str, str]:
    ports = (settings.min_port, settings.max_port)
    low, high = ports if any(ports) else _DEFAULT_PORTS
    variables = {
        "PLUGIN_PROTOCOL_VERSIONS": format_versions(
            settings.protocol_versions if versions is None else versions
        ),
        "PLUGIN_MIN_PORT": str(low),
        "PLUGIN_MAX_PORT": str(high),
    }
    if settings.unix_socket_dir:
        variables["PLUGIN_UNIX_SOCKET_DIR"] = settings.unix_socket_dir
    if settings.unix_socket_group:
        variables["PLUGIN_UNIX_SOCKET_GROUP"] = settings.unix_socket_group
    if settings.multiplex_grpc:
        variables["PLUGIN_MULTIPLEX_GRPC"] = "true"
    if settings.outlive_host:
        variables["PLUGIN_OUTLIVE_HOST"] = "true"
    if settings.wait_for_debugger:
        variables["PLUGIN_WAIT_FOR_DEBUGGER"] = "true"
    if certificate is not None:
        variables["PLUGIN_CLIENT_CERT"] = certificate
    # Last, so that no other variable can take its place.
    variables[settings.magic_cookie_key] = settings.magic_cookie_value
    return variables


def _before_unpacking(inherited: Mapping[str, str]) -> Mapping[str, str]:
    """The environment as it was before a program frozen by PyInstaller was unpacked.

    What unpacks it names the folder with its libraries to the system's loader. Plugins would take
    their own libraries from there, of other versions than they were built with.
    """
    if not hasattr(sys, "_MEIPASS"):
        return inherited
    before = dict(inherited)
    for name in ("LD_LIBRARY_PATH", "LIBPATH"):  # the second is that of AIX
        original = before.pop(f"{name}_ORIG", None)
        before.pop(name, None)
        if original is not None:
            before[name] = original
    return before


def _wanted_names(inherit_env: bool | Collection[str]) -> Collection[str] | None:
    """The names to inherit; ``None`` for all."""
    if inherit_env is True:
        return None
    if inherit_env is False:
        return ()
    if isinstance(inherit_env, str):
        message = f"inherit_env is {inherit_env!r}: accepted is true, false or a list of names"
        raise ConfigError(message, f"Perhaps [{inherit_env!r}] is meant.", phase="settings")
    return frozenset(inherit_env)


def _check_variable(name: object, value: object) -> str:
    """The value of a variable, if the system can take both its name and its value."""
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        message = f"{name!r} in env= cannot be the name of a variable"
        raise ConfigError(message, phase="settings")
    if isinstance(value, (str, bytes, os.PathLike)):
        text = os.fsdecode(cast("os.PathLike[Any]", value))
        if "\0" not in text:
            return text
    # Variables hold passwords as often as not, so the value stays out of it.
    message = f"{name} in env= is no value that a variable can hold"
    raise ConfigError(
        message, "Accepted is text without null characters, or a path.", phase="settings"
    )
