"""What a handler can find out about the call that it handles, wherever it is in its code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, final

from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.rpc._server_stream import current_call

from .broker import current_broker, current_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grpclib.metadata import Deadline, _Metadata as Metadata
    from grpclib.protocol import Peer

    from pyvider_rpcplugin.rpc import ServerStream

    from .broker import Broker

__all__ = ["CallContext", "context"]


T = TypeVar("T")


@final
class CallContext:
    """The call that is being handled; see `context`."""

    __slots__ = ("_broker", "_call")

    def __init__(self, call: ServerStream[Any, Any], broker: Broker | None) -> None:
        self._call = call
        self._broker = broker

    def __repr__(self) -> str:
        return f"<CallContext {self._call.head.path}>"

    @property
    def broker(self) -> Broker:
        """What connects back to the caller.

        Raises:
            RPCPluginError: There is none: nobody started this server, it stands alone.
        """
        if self._broker is None:
            msg = "this server has no broker: it serves on its own, without a host"
            raise RPCPluginError(msg, phase="broker")
        return self._broker

    def host(
        self,
        interface: Callable[..., T],
        *,
        service_name: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> T:
        """Make an object with the methods of an interface, each of which is a call of the host.

        Args:
            interface: The class that the host offers with `services=`, or a typing.Protocol with
                its methods.
            service_name: The service's name; by default the interface's.
            timeout: Seconds that each of its calls may take.
            metadata: What is sent along with each.

        Raises:
            RPCPluginError: No host started this server. Where the host offers nothing, the calls
                raise it.
            ProtocolError: A method of the interface cannot be called from elsewhere.
        """
        peer = self._call.server.peer
        if peer is None:
            msg = "there is no host to call: this server serves on its own, or is the host's"
            raise RPCPluginError(msg, phase="call")
        proxy: T = peer().proxy(
            interface, service_name=service_name, timeout=timeout, metadata=metadata
        )
        return proxy

    @property
    def deadline(self) -> Deadline | None:
        """By when the caller wants the call to be complete; None: whenever."""
        return self._call.deadline

    @property
    def metadata(self) -> Metadata | None:
        """What came with the request."""
        return self._call.metadata

    @property
    def negotiated_version(self) -> int | None:
        """The version of the application's protocol that this plugin serves; None in a host."""
        return current_version.get()

    @property
    def peer(self) -> Peer:
        """Who calls."""
        return self._call.peer


def context() -> CallContext:
    """Return the context of the call that the running task handles.

    Tasks that a handler starts have it too.

    Raises:
        RPCPluginError: No call is being handled here.
    """
    call = current_call.get()
    if call is None:
        msg = "there is no call being handled here"
        hint = "context() is for handlers, and for what they call."
        raise RPCPluginError(msg, hint, phase="call")
    return CallContext(call, current_broker.get())
