"""The cookie: how a plugin knows that a host started it, and not a person at a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyvider_rpcplugin.config import Settings


def check_cookie(settings: Settings, environ: Mapping[str, str]) -> None:
    """Make sure that a plugin was started by its host.

    The cookie is no secret that protects anything, but it is treated as one: compared in constant
    time, and never part of a message.

    Args:
        settings: The plugin's own settings, which say what the cookie has to be.
        environ: The environment that the plugin was started with.

    Raises:
        HandshakeError: The variable is not there or holds something else, or this plugin has
            no cookie at all.
    """
    variable, expected = settings.magic_cookie_key, settings.magic_cookie_value
    if not variable or not expected:
        raise HandshakeError(
            "this plugin has no magic cookie",
            "Its author has to set PLUGIN_MAGIC_COOKIE_KEY and PLUGIN_MAGIC_COOKIE_VALUE.",
            phase="handshake",
        )
    given = environ.get(variable)
    if not given and "PLUGIN_PROTOCOL_VERSIONS" in environ:
        message = f"a host started this plugin without its cookie: {variable} is not set"
        raise HandshakeError(
            message,
            "The host has to know the plugin's cookie: magic_cookie_key and magic_cookie_value, or "
            f"--cookie {variable}=VALUE.",
            phase="handshake",
        )
    if not given:
        message = f"this program is a plugin, and no host started it: {variable} is not set"
        raise HandshakeError(
            message,
            "The program that uses it starts it. By hand, `pyvider-rpcplugin inspect` looks at it, and "
            "--debug makes it serve.",
            phase="handshake",
        )
    # Not every variable is valid UTF-8: what is not comes as lone surrogates.
    given_bytes = given.encode("utf-8", "surrogateescape")
    if not _are_equal(given_bytes, expected.encode("utf-8", "surrogateescape")):
        message = f"the host's magic cookie in {variable} is not the one of this plugin"
        raise HandshakeError(
            message,
            "PLUGIN_MAGIC_COOKIE_VALUE has to be the same for the host and for its plugin.",
            phase="handshake",
        )


def _are_equal(first: bytes, second: bytes) -> bool:
    """Compare in a time that does not depend on where they differ.

    `hmac` has such a function, and would load OpenSSL's hashes with it, at each start of a plugin.
    """
    if len(first) != len(second):
        return False
    difference = 0
    for one, other in zip(first, second, strict=True):
        difference |= one ^ other
    return difference == 0
