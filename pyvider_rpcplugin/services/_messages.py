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


class Knock(msgspec.Struct, frozen=True):
    """`plugin.ConnInfo.Knock`, with which streams of a multiplexed connection are agreed on."""

    knock: bool = False
    ack: bool = False
    error: str = ""

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Encode it."""
        error = bytes_field(3, self.error.encode()) if self.error else b""
        return number_field(1, self.knock) + number_field(2, self.ack) + error

    @classmethod
    def FromString(cls, data: bytes) -> Knock:  # noqa: N802
        """Decode it."""
        knock = ack = False
        error = b""
        for number, value in fields(data):
            if number == 1 and isinstance(value, int):
                knock = bool(value)
            elif number == 2 and isinstance(value, int):
                ack = bool(value)
            elif number == 3 and isinstance(value, bytes):
                error = value
        return cls(knock, ack, error.decode())


class ConnInfo(msgspec.Struct, frozen=True):
    """`plugin.ConnInfo`: where the service with this number can be reached."""

    service_id: int = 0
    network: str = ""
    address: str = ""
    knock: Knock | None = None

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Encode it."""
        out = number_field(1, self.service_id)
        if self.network:
            out += bytes_field(2, self.network.encode())
        if self.address:
            out += bytes_field(3, self.address.encode())
        if self.knock is not None:
            out += bytes_field(4, self.knock.SerializeToString())
        return out

    @classmethod
    def FromString(cls, data: bytes) -> ConnInfo:  # noqa: N802
        """Decode it."""
        service_id = 0
        network = address = b""
        knock: Knock | None = None
        for number, value in fields(data):
            if number == 1 and isinstance(value, int):
                service_id = value & 0xFFFF_FFFF  # as protobuf does with what is no uint32
            elif number == 2 and isinstance(value, bytes):
                network = value
            elif number == 3 and isinstance(value, bytes):
                address = value
            elif number == 4 and isinstance(value, bytes):
                knock = Knock.FromString(value)
        return cls(service_id, network.decode(), address.decode(), knock)
