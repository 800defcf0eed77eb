"""The protocol behind `plugin_protocol()`, and behind a plugin that names none."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from pyvider_rpcplugin.exception import ProtocolError, RPCPluginError

from .base import RPCPluginProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BasicProtocol", "register"]


class BasicProtocol(RPCPluginProtocol):
    """Registers a handler by a given function, or by what the handler says of itself.

    Args:
        service_name: The service's name; by default the handler's class's.
        descriptor_module: The generated module that describes it.
        servicer_add_fn: Called as `servicer_add_fn(handler, server)`; may be async.
    """

    def __init__(
        self,
        service_name: str | None = None,
        descriptor_module: Any = None,
        servicer_add_fn: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.service_name = service_name
        self.descriptor_module = descriptor_module
        self.servicer_add_fn = servicer_add_fn

    async def get_grpc_descriptors(self) -> tuple[Any, str]:
        """Return what was given."""
        return self.descriptor_module, self.service_name or ""

    async def add_to_server(self, server: Any, handler: Any) -> None:
        """Register the handler.

        Raises:
            ProtocolError: Neither a function was given, nor does the handler say what it serves.
        """
        add = self.servicer_add_fn
        if add is None:
            _check_is_object(handler)
        if add is None and hasattr(handler, "__mapping__"):
            server.add_service(handler)
            return
        add = add or _grpcio_function(handler)
        if add is not None:
            result = add(handler, server)
            if inspect.isawaitable(result):
                await result
        else:
            # Few plugins have both kinds.
            from .typed import TypedService  # noqa: PLC0415

            use_threads = getattr(handler, "_use_threads", None)
            if use_threads is not None:  # It is one of plain functions.
                use_threads(server.threads)
            server.add_service(TypedService(handler, self.service_name))


def _check_is_object(handler: Any) -> None:
    """Refuse what is easily given in place of a handler.

    Raises:
        ProtocolError: It is a class, or nothing at all.
    """
    if isinstance(handler, type):
        msg = f"nothing to serve: the handler is the class {handler.__name__}, not an object of it"
        raise ProtocolError(msg, f"handler={handler.__name__}()", phase="serve")
    if handler is None:
        msg = "nothing to serve: there is no handler"
        raise ProtocolError(
            msg,
            "plugin_server(handler=...) takes the object whose methods hosts call",
            phase="serve",
        )


def _grpcio_function(handler: Any) -> Callable[[Any, Any], Any] | None:
    """The function that registers the handler, beside the class of grpcio's that it derives from."""
    for kind in type(handler).__mro__:
        module = sys.modules.get(kind.__module__)
        function: Any = getattr(module, f"add_{kind.__name__}_to_server", None)
        if function is not None:
            add: Callable[[Any, Any], Any] = function
            return add
    return None


async def register(server: Any, protocol: RPCPluginProtocol | None, handler: Any) -> None:
    """Have `protocol` register `handler` with `server`, and see that it did.

    Args:
        server: The RPC server: `add_service()` and the names of its `services`.
        protocol: None for a handler that says itself what it serves.
        handler: The user's handler.

    Raises:
        ProtocolError: It failed, or registered nothing.
    """
    if protocol is None:
        protocol = BasicProtocol()
    if not hasattr(protocol, "add_to_server"):
        msg = f"a {_kind(protocol)} is no protocol: it has no add_to_server()"
        raise ProtocolError(
            msg, "the handler is another argument: plugin_server(handler=...)", phase="serve"
        )
    before = _served(server)
    try:
        # Documented as called by keyword; plain functions are as good as async ones.
        result: Any = protocol.add_to_server(server=server, handler=handler)
        if inspect.isawaitable(result):
            await result
    except RPCPluginError:
        raise
    except Exception as exc:
        msg = f"{_kind(protocol)} could not register its service: {type(exc).__name__}: {exc}"
        hint = None
        if isinstance(exc, AttributeError) and exc.obj is server:
            hint = "server.add_service(handler) is how, and what grpclib or grpcio generates"
        raise ProtocolError(msg, hint, phase="serve") from exc
    if _served(server) == before:
        msg = f"{_kind(protocol)} registered no service: there would be nothing to serve"
        raise ProtocolError(
            msg, hint="add_to_server() should call server.add_service(handler)", phase="serve"
        )


def _served(server: Any) -> int:
    # A generic handler of grpcio's form may not list its methods.
    return len(server.methods) + len(getattr(server, "generic_handlers", ()))


def _kind(thing: Any) -> str:
    return type(thing).__name__
