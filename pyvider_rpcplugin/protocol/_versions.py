"""Several versions of an application's protocol in one plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pyvider_rpcplugin.exception import ProtocolError

Served = tuple[Any, Any]
"""A protocol, or None, and the handler that it registers."""


def services_by_version(
    protocol: object, handler: Any, versions: object
) -> dict[int, Served] | None:
    """Read what a server was given to serve, as its versions with what each of them serves.

    Args:
        protocol: A mapping from versions, or what a server of one protocol takes.
        handler: The handler of those versions that name none.
        versions: The same mapping under its other name, or None.

    Returns:
        None for a server of one protocol.

    Raises:
        ProtocolError: It is no such mapping, or there are two, or it is empty.
    """
    if versions is None:
        if not isinstance(protocol, Mapping):
            return None
        versions = cast("object", protocol)
    elif protocol is not None:
        msg = "versions= says what each version serves, and so there is no place for a protocol"
        raise ProtocolError(msg, "Put the protocol into the mapping.", phase="serve")
    elif not isinstance(versions, Mapping):
        msg = f"versions= is {type(versions).__name__}: accepted is a mapping from versions"
        hint = "protocol_versions= says as which versions one protocol is served."
        raise ProtocolError(msg, hint, phase="serve")
    given = cast("Mapping[object, object]", versions)
    if not given:
        msg = "the mapping of versions is empty: there would be nothing to serve"
        raise ProtocolError(msg, phase="serve")
    return {_number(version): _served(value, handler) for version, value in given.items()}


def _number(version: object) -> int:
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        msg = f"{version!r:.60} is not the number of a version"
        raise ProtocolError(msg, "Versions are whole numbers, 0 or more.", phase="serve")
    return version


def _served(value: object, handler: Any) -> Served:
    if isinstance(value, tuple):
        pair = cast("tuple[object, ...]", value)
        if len(pair) != 2:
            msg = f"a version has {len(pair)} things to serve: accepted is (protocol, handler)"
            raise ProtocolError(msg, phase="serve")
        return pair[0], pair[1]
    # A class of a protocol is as good as one that only does what protocols do.
    if hasattr(value, "add_to_server"):
        return value, handler
    return None, value
