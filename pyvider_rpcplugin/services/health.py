"""The standard health service, `grpc.health.v1.Health`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from ._messages import (
    Empty,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListResponse,
    ServingStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "PLUGIN_SERVICE",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "HealthListResponse",
    "HealthService",
    "ServingStatus",
    "check_health",
]

#: What hosts ask for. It, "", which stands for the whole server, and the application's services are
#: known and well, until something else is said of them.
PLUGIN_SERVICE = "plugin"

_PREFIX = "/grpc.health.v1.Health/"


class HealthService:
    """Answers Check, List and Watch for as long as the plugin serves, and while it drains.

    Attributes:
        check_method: The path of what is over at once, however many ask.
    """

    check_method: str = _PREFIX + "Check"

    def __init__(self) -> None:
        self._served: tuple[str, ...] = ()
        self._said: dict[str, ServingStatus] = {}
        self._watchers: set[anyio.Event] = set()
        self._stopping = False

    def set_status(self, service: str, status: ServingStatus) -> None:
        """Say how `service` is; whoever watches it hears of it."""
        self._said[service] = status
        self._wake()

    def start(self, services: Iterable[str] = ()) -> None:
        """Say what was set, and that the other services are well. It may have been stopped before.

        Args:
            services: Those of the application.
        """
        self._stopping = False
        self._served = ("", PLUGIN_SERVICE, *services)

    def stop(self) -> None:
        """Say NOT_SERVING for everything, and let the watching streams end.

        A host that watches would otherwise hold up the end for the whole grace period.
        """
        self._stopping = True
        self._wake()

    def _status(self, service: str) -> ServingStatus | None:
        status = self._said.get(service)
        if status is None and service in self._served:
            status = ServingStatus.SERVING
        return ServingStatus.NOT_SERVING if status is not None and self._stopping else status

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()

    def __mapping__(self) -> dict[str, Handler]:
        """Name the methods, as a generated grpclib class does."""
        return {
            self.check_method: Handler(
                self._check, Cardinality.UNARY_UNARY, HealthCheckRequest, HealthCheckResponse
            ),
            _PREFIX + "List": Handler(
                self._list, Cardinality.UNARY_UNARY, Empty, HealthListResponse
            ),
            _PREFIX + "Watch": Handler(
                self._watch, Cardinality.UNARY_STREAM, HealthCheckRequest, HealthCheckResponse
            ),
        }

    async def _check(self, stream: Any) -> None:
        request = await stream.recv_message()
        status = self._status(request.service)
        if status is None:
            raise GRPCError(Status.NOT_FOUND, f"unknown service {request.service!r}")
        await stream.send_message(HealthCheckResponse(status))

    async def _list(self, stream: Any) -> None:
        await stream.recv_message()
        statuses: dict[str, HealthCheckResponse] = {}
        for name in (*self._served, *self._said):
            status = self._status(name)
            if status is not None:
                statuses[name] = HealthCheckResponse(status)
        await stream.send_message(HealthListResponse(statuses))

    async def _watch(self, stream: Any) -> None:
        request = await stream.recv_message()
        last: ServingStatus | None = None
        while True:
            changed = anyio.Event()
            self._watchers.add(changed)
            try:
                # A service that is not known may become known: that is no error here.
                status = self._status(request.service)
                if status is None:
                    status = ServingStatus.SERVICE_UNKNOWN
                if status != last:
                    last = status
                    await stream.send_message(HealthCheckResponse(status))
                if self._stopping:
                    raise GRPCError(Status.UNAVAILABLE, "the plugin is stopping")
                await changed.wait()
            finally:
                self._watchers.discard(changed)


async def check_health(
    channel: Any,
    service: str = PLUGIN_SERVICE,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - as calls have it
) -> ServingStatus:
    """Ask the other side how `service` is, for at most so many seconds.

    Raises:
        GRPCError: The call failed; NOT_FOUND if the service is not known there.
    """
    call = channel.request(
        _PREFIX + "Check",
        Cardinality.UNARY_UNARY,
        HealthCheckRequest,
        HealthCheckResponse,
        timeout=timeout,
    )
    async with call.count_apart() as stream:
        await stream.send_message(HealthCheckRequest(service), end=True)
        response = await stream.recv_message()
    status: ServingStatus = response.status
    return status
