"""The standard reflection service, `grpc.reflection.v1.ServerReflection`, and its `v1alpha`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

__all__ = ["ReflectionService"]

# The two differ in nothing but their names. Tools ask the newer one first, or know the older only.
_PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


class _Message(bytes):
    """A message that is not looked into before somebody asks: most plugins are never asked."""

    __slots__ = ()

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name, which codecs call
        """Return it."""
        return self

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802
        """Take it."""
        return cls(data)


class ReflectionService:
    """Tells which services there are, and how they are described in Protocol Buffers."""

    def __init__(
        self,
        services: Callable[[], Iterable[str]],
        pools: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        """Make the service.

        Args:
            services: Says which services there are.
            pools: Makes the descriptors of those that no generated module has registered.
        """
        self._services = services
        self._pools = pools

    @property
    def methods(self) -> tuple[str, ...]:
        """The paths of what stays open for as long as somebody may ask."""
        return _PATHS

    def __mapping__(self) -> dict[str, Handler]:
        """Name the methods, as a generated grpclib class does."""
        handler = Handler(self._info, Cardinality.STREAM_STREAM, _Message, _Message)
        return dict.fromkeys(_PATHS, handler)

    async def _info(self, stream: Any) -> None:
        from ._descriptors import Answers  # noqa: PLC0415 - loads protobuf's descriptors

        answers = Answers(self._services, self._pools())
        async for request in stream:
            try:
                answer = answers.answer(request)
            except ValueError as exc:
                raise GRPCError(Status.INVALID_ARGUMENT, f"this is no request: {exc}") from None
            await stream.send_message(_Message(answer))
