"""The messages of the standard services: plain classes that every protobuf codec takes."""

from __future__ import annotations

import enum

import msgspec

from ._wire import bytes_field, fields, number_field


class ServingStatus(enum.IntEnum):
    """What the health service says of a service."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class Empty(msgspec.Struct, frozen=True):
    """A message without fields (`plugin.Empty`, `grpc.health.v1.HealthListRequest`)."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name, which codecs call
        """Encode it."""
        return b""

    @classmethod
    def FromString(cls, data: bytes) -> Empty:  # noqa: N802
        """Decode it; whatever fields a later version may send are skipped."""
        for _ in fields(data):
            pass
        return cls()


class HealthCheckRequest(msgspec.Struct, frozen=True):
    """`grpc.health.v1.HealthCheckRequest`."""

    service: str = ""

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Encode it."""
        return bytes_field(1, self.service.encode()) if self.service else b""

    @classmethod
    def FromString(cls, data: bytes) -> HealthCheckRequest:  # noqa: N802
        """Decode it."""
        service = b""
        for number, value in fields(data):
            if number == 1 and isinstance(value, bytes):
                service = value
        return cls(service.decode())


class HealthCheckResponse(msgspec.Struct, frozen=True):
    """`grpc.health.v1.HealthCheckResponse`."""

    status: ServingStatus = ServingStatus.UNKNOWN

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Encode it."""
        return number_field(1, self.status)

    @classmethod
    def FromString(cls, data: bytes) -> HealthCheckResponse:  # noqa: N802
        """Decode it; a status that a later version may add is UNKNOWN."""
        status = ServingStatus.UNKNOWN
        for number, value in fields(data):
            if number == 1 and isinstance(value, int):
                try:
                    status = ServingStatus(value)
                except ValueError:
                    status = ServingStatus.UNKNOWN
        return cls(status)


class HealthListResponse(msgspec.Struct, frozen=True):
    """`grpc.health.v1.HealthListResponse`."""

    statuses: dict[str, HealthCheckResponse] = msgspec.field(
        default_factory=dict[str, HealthCheckResponse]
    )

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Encode it: a map is a repeated message of key and value."""
        return b"".join(
            bytes_field(
                1,
                bytes_field(1, service.encode()) + bytes_field(2, response.SerializeToString()),
            )
            for service, response in self.statuses.items()
        )

    @classmethod
    def FromString(cls, data: bytes) -> HealthListResponse:  # noqa: N802
        """Decode it."""
        statuses: dict[str, HealthCheckResponse] = {}
        for number, entry in fields(data):
            if number == 1 and isinstance(entry, bytes):
                parts = {key: part for key, part in fields(entry) if isinstance(part, bytes)}
                statuses[parts.get(1, b"").decode()] = HealthCheckResponse.FromString(
                    parts.get(2, b"")
                )
        return cls(statuses)
