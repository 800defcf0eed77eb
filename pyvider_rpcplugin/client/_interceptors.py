"""Which calls of a host its interceptors see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvider_rpcplugin.rpc._interceptors import check_client_interceptors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvider_rpcplugin.rpc import InterceptedCall, Interceptor, Observer

# What the two sides live by, and what `ping` asks.
_OWN = ("/plugin.GRPC", "/grpc.health.v1.Health/")


def of_the_application(interceptors: Iterable[Interceptor]) -> tuple[Interceptor, ...]:
    """The same interceptors, for calls of the application's services alone.

    Raises:
        ProtocolError: One is none.
    """
    return tuple(map(_application_only, check_client_interceptors(interceptors)))


def _application_only(interceptor: Interceptor) -> Interceptor:
    async def intercept(call: InterceptedCall) -> Observer | None:
        if call.method.startswith(_OWN):
            return None
        return await interceptor(call)

    return intercept
