"""What a server says of its typed services, to whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ._interface import REQUIRED
from ._methods import CARDINALITIES
from ._service import TypedHandler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvider_rpcplugin.rpc import ServerStream

    from ._interface import Method, Parameter


async def describe(call: ServerStream[Any, Any]) -> None:
    """Handle the call that asks."""
    await call.recv_message()
    services = {
        name: handler.service
        for path, handler in call.server.methods.items()
        if isinstance(handler, TypedHandler)
        for name in [path.split("/")[1]]
    }
    described = {
        name: {"doc": service.doc, "methods": described_methods(service.methods.values())}
        for name, service in services.items()
    }
    await call.send_message(msgspec.msgpack.encode({"services": described}))


def described_methods(methods: Iterable[Method]) -> dict[str, Any]:
    """What is said of the methods of a class: what they take and give, as JSON schemas."""
    return {method.name: _described(method) for method in methods}


def _described(method: Method) -> dict[str, Any]:
    kind = CARDINALITIES[method.incoming is not None, method.streams]
    said: dict[str, Any] = {
        "doc": method.doc,
        "type": kind.name.lower(),
        "arguments": _arguments(method.parameters),
        "result": _schema(method.result),
    }
    if method.incoming is not None:
        said["items"] = {"name": method.incoming.name, **_schema(method.item)}
    if method.errors:
        said["errors"] = [error.__name__ for error in method.errors]
    return said


def _arguments(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for one in parameters:
        if one.reference is None:
            properties[one.name] = _schema(one.annotation)
        else:
            properties[one.name] = {"description": f"called back: {one.annotation}"}
        if one.default is not REQUIRED and one.reference is None:
            try:
                properties[one.name]["default"] = msgspec.to_builtins(one.default)
            except (TypeError, ValueError):
                continue
    return {
        "type": "object",
        "properties": properties,
        "required": [one.name for one in parameters if one.default is REQUIRED],
    }


def _schema(kind: Any) -> dict[str, Any]:
    try:
        return msgspec.json.schema(kind)
    except TypeError:  # Something that JSON has no form for.
        return {"description": str(kind)}
