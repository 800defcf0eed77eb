"""Bounds for what a plugin's process may use."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, final

from pyvider_rpcplugin._events import event_logger
from pyvider_rpcplugin.exception import ConfigError, TransportError

if TYPE_CHECKING:
    import logging

_POSSIBLE = sys.platform.startswith("linux")
if sys.platform.startswith("linux"):
    import resource

__all__ = ["ResourceLimits"]

logger: logging.Logger = event_logger(__name__)

_KINDS = {
    "memory": "RLIMIT_DATA",
    "open_files": "RLIMIT_NOFILE",
    "cpu_seconds": "RLIMIT_CPU",
    "processes": "RLIMIT_NPROC",
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceLimits:
    """What a plugin may use at most; None: as much as its host.

    The system enforces them, from just after the start of the process, for it and for each process
    that it starts. A limit that is in force already and lower stays as it is.

    Attributes:
        memory: Bytes that each process may allocate; asking for more fails.
        open_files: Descriptors that each process may have open.
        cpu_seconds: Seconds that each process may compute. Then it gets SIGXCPU, and SIGKILL a
            second later.
        processes: Processes and threads that the *user* may have, all of the user's own included;
            at the limit the plugin can start no more. Does not bind root.

    Raises:
        ConfigError: One of them is not a positive whole number, or this system has no such limits.
    """

    memory: int | None = None
    open_files: int | None = None
    cpu_seconds: int | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        """Check them."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                msg = f"the limit {field.name} is {value!r}: accepted is a whole number above 0"
                raise ConfigError(msg, phase="settings")
            if not _POSSIBLE:
                msg = f"the limit {field.name} cannot be set: this system cannot limit a process"
                raise ConfigError(msg, "Only Linux can.", phase="settings")

    def apply(self, pid: int) -> None:
        """Put them into force for a process that has just been started.

        Raises:
            TransportError: The system refuses.
        """
        for name, kind in _KINDS.items():
            wanted = getattr(self, name)
            if wanted is None:
                continue
            number = getattr(resource, kind)
            try:
                soft, hard = (_lower(wanted, old) for old in resource.prlimit(pid, number))
                if name == "cpu_seconds":
                    hard = _lower(wanted + 1, resource.prlimit(pid, number)[1])
                resource.prlimit(pid, number, (soft, hard))
            except ProcessLookupError:
                return  # it has ended already
            except (OSError, ValueError) as error:
                msg = f"cannot limit the plugin's {name} to {wanted}: {error}"
                hint = "The process may run as another user, or in a sandbox that forbids it."
                raise TransportError(msg, hint, phase="launch") from error
        logger.debug("process.limited pid=%d %r", pid, self)


def _lower(wanted: int, old: int) -> int:
    return wanted if old == resource.RLIM_INFINITY else min(wanted, old)
