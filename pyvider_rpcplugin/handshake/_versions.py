"""Which version of the application's protocol host and plugin speak."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from pyvider_rpcplugin.exception import HandshakeError

if TYPE_CHECKING:
    from collections.abc import Collection

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"[+-]?[0-9]{1,19}")


def format_versions(versions: Collection[int]) -> str:
    """The versions that a host speaks, as it tells its plugin."""
    return ",".join(str(version) for version in sorted(set(versions)))


def choose_version(mine: Collection[int], offered: str | None) -> int:
    """The version that a plugin serves: the highest that both sides speak.

    Where there is none, and for a host that offers none (very old ones do not), it is the lowest
    of the plugin's own: the host sees it in the handshake line and is the one to refuse.

    Args:
        mine: The versions that the plugin can serve.
        offered: What the host said: numbers separated by commas. What is no number among them is
            logged and left out.

    Raises:
        HandshakeError: The plugin serves no version at all.
    """
    if not mine:
        raise HandshakeError(
            "this plugin serves no version of its protocol",
            "Its author has to give it at least one.",
            phase="handshake",
        )
    theirs: set[int] = set()
    for item in (offered or "").split(","):
        if _VERSION.fullmatch(item):
            theirs.add(int(item))
        elif offered:
            logger.warning("PLUGIN_PROTOCOL_VERSIONS has %.60r in it, which is no number", item)
    common = theirs.intersection(mine)
    if common:
        return max(common)
    if theirs:
        logger.warning(
            "the host speaks %s of the application's protocol, this plugin serves %s",
            format_versions(theirs),
            format_versions(mine),
        )
    return min(mine)
