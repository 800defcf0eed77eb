"""What the tests of typed services share."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pyvider_rpcplugin.protocol.typed import TypedService, make_proxy
from pyvider_rpcplugin.rpc import Server
from tests.rpc.support import Linked, linked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def served(*handlers: object, **options: Any) -> AsyncIterator[Linked]:
    """A channel to a server of these objects."""
    async with linked(server=Server([TypedService(one) for one in handlers]), **options) as ours:
        yield ours


@asynccontextmanager
async def called(handler: object, interface: Any = None, **options: Any) -> AsyncIterator[Any]:
    """A proxy of an object, by its own class or by another interface."""
    async with served(handler) as ours:
        kind = type(handler)
        name = options.pop("service_name", kind.__name__)
        yield make_proxy(interface or kind, ours.channel, service_name=name, **options)
        await ours.check_nothing_is_left()
