"""Services that are plain classes: what their annotations say is what is sent.

The public async methods of an object are served by `TypedService`, and called through a proxy of
its class, or of a protocol with the same methods. Messages are MessagePack, by msgspec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._check import Service, check, describe_services
    from ._errors import RemoteError
    from ._loans import Loans
    from ._peer import Peer
    from ._proto_file import proto_of
    from ._proxy import make_proxy
    from ._raises import raises
    from ._results import ResultStream
    from ._service import TypedService
    from ._threads import in_threads

__all__ = [
    "Loans",
    "Peer",
    "RemoteError",
    "ResultStream",
    "Service",
    "TypedService",
    "check",
    "describe_services",
    "in_threads",
    "make_proxy",
    "proto_of",
    "raises",
]

_HOMES = {  # A plugin serves, a host calls.
    "_check": ("Service", "check", "describe_services"),
    "_errors": ("RemoteError",),
    "_loans": ("Loans",),
    "_peer": ("Peer",),
    "_proto_file": ("proto_of",),
    "_proxy": ("make_proxy",),
    "_raises": ("raises",),
    "_results": ("ResultStream",),
    "_service": ("TypedService",),
    "_threads": ("in_threads",),
}

__getattr__: Callable[[str], object]
__dir__: Callable[[], list[str]]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, globals())
