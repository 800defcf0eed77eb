"""From generated modules to the types of a service's methods."""

from __future__ import annotations

from types import ModuleType
from typing import Any, cast

from grpclib.const import Cardinality

# By what streams: the requests, the replies.
_TYPES: dict[tuple[bool, bool], str] = {
    cast("tuple[bool, bool]", member.value): member.name.lower() for member in Cardinality
}


def method_types(module: ModuleType, service_name: str) -> dict[str, str]:
    """Find a service in a generated module and return its methods' types by their names.

    The module may hold the descriptors themselves (`_pb2`), grpclib's generated classes, or import
    the module that does, as generated code always does under some name.
    """
    for candidate in (module, *_modules_in(module)):
        types = _from_descriptor(candidate, service_name) or _from_base(candidate, service_name)
        if types:
            return types
    return {}


def _modules_in(module: ModuleType) -> list[ModuleType]:
    found = [value for value in vars(module).values() if isinstance(value, ModuleType)]
    # `import a.b_pb2` binds the package only; its descriptors lie below.
    below = [
        value
        for package in found
        for name, value in vars(package).items()
        if isinstance(value, ModuleType) and name.endswith("_pb2")
    ]
    return found + below


def _from_descriptor(module: ModuleType, service_name: str) -> dict[str, str]:
    file = getattr(module, "DESCRIPTOR", None)
    services: dict[str, Any] = getattr(file, "services_by_name", None) or {}
    for name, service in services.items():
        if service_name in {name, service.full_name}:
            return {
                method.name: _TYPES[bool(method.client_streaming), bool(method.server_streaming)]
                for method in service.methods
            }
    return {}


def _from_base(module: ModuleType, service_name: str) -> dict[str, str]:
    base = getattr(module, service_name.rpartition(".")[2] + "Base", None)
    if base is None or not hasattr(base, "__mapping__"):
        return {}
    # The generated method reads bound methods and constants only, so a class that has all of its
    # abstract methods filled in is enough to call it.
    names = getattr(base, "__abstractmethods__", ())
    instance = type(base.__name__, (base,), dict.fromkeys(names))()
    return {
        path.rpartition("/")[2]: _TYPES[handler.cardinality.value]
        for path, handler in instance.__mapping__().items()
    }
