"""Stubs and proxies some of whose calls may be made again because it does no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyvider_rpcplugin.exception import ConfigError
from pyvider_rpcplugin.rpc._metadata import new_metadata
from pyvider_rpcplugin.rpc._retry import RetryingStream

from ._handle import ChannelHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from grpclib.const import Cardinality

    from pyvider_rpcplugin.rpc import Channel

    Idempotent = bool | Collection[str]


class RetryingHandle(ChannelHandle):
    """The channel of a client, for calls some of which are idempotent.

    Args:
        current: Gives the channel.
        idempotent: True: all of them. Otherwise the names of the methods, or their paths.
    """

    def __init__(self, current: Callable[[], Channel], idempotent: Idempotent) -> None:
        super().__init__(current)
        self._all = idempotent is True
        self._paths: dict[str, bool] = {}
        if isinstance(idempotent, str):
            msg = f"idempotent={idempotent!r}: True is accepted, or several names, as in a set"
            raise ConfigError(msg, phase="settings")
        names = () if isinstance(idempotent, bool) else idempotent
        self._names = {_plain(name): name for name in names}

    def _is_idempotent(self, path: str) -> bool:
        found = self._paths.get(path)
        if found is None:
            found = self._all or bool({_plain(path), _last(path)} & self._names.keys())
            self._paths[path] = found
        return found

    def check(self, made: object) -> None:
        """See that there are methods of these names.

        Raises:
            ConfigError: There is none of one of them.
        """
        known = {_plain(name) for name in dir(made)}
        for plain, name in self._names.items():
            if _last(plain) not in known:
                msg = f"idempotent: {type(made).__name__} has no method {name!r}"
                raise ConfigError(msg, phase="settings")

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: Any,
        reply_type: Any,
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: Any = None,
        codec: Any = None,
    ) -> Any:
        """Begin a call, as a channel does."""
        channel = self._current()
        if cardinality.client_streaming or not self._is_idempotent(name):
            return channel.request(
                name, cardinality, request_type, reply_type,
                timeout=timeout, deadline=deadline, metadata=metadata, codec=codec,
            )  # fmt: skip
        return RetryingStream(
            channel,
            name,
            new_metadata(metadata) if metadata else None,
            cardinality,
            request_type,
            reply_type,
            channel.due_of(timeout, deadline),
            codec,
        )

    def unary_unary(self, method: str, *args: Any, **keywords: Any) -> Any:
        """What grpcio's generated stubs call a method through."""
        return self._marked(self._current().unary_unary, method, *args, **keywords)

    def unary_stream(self, method: str, *args: Any, **keywords: Any) -> Any:
        """The same, for a method whose responses are streamed."""
        return self._marked(self._current().unary_stream, method, *args, **keywords)

    def _marked(self, make: Callable[..., Any], method: str, *args: Any, **keywords: Any) -> Any:
        made = make(method, *args, **keywords)
        made.idempotent = self._is_idempotent(method)
        return made


def _plain(name: str) -> str:
    """A name as it is compared: generators of stubs write the same one in different ways."""
    return name.replace("_", "").lower()


def _last(path: str) -> str:
    return _plain(path.rpartition("/")[2])
