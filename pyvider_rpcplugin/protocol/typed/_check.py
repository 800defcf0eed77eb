"""Whether an interface fits what the other side serves, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError

from ._describe import described_methods
from ._formats import DESCRIBE, MSGPACK
from ._interface import checked_interface, methods_of
from ._messages import CANNOT_DECODE, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvider_rpcplugin.rpc import Channel

    from ._peer import Peer

__all__ = ["Description", "Service", "check", "describe_services"]


class Service(msgspec.Struct):
    """What a service is.

    Attributes:
        methods: By their names: "doc", "type" ("unary_unary" and the like), and JSON schemas of
            the "arguments", of the "result", and of the "items" of an argument that is streamed.
        doc: The docstring of its class.
    """

    methods: dict[str, dict[str, Any]]
    doc: str | None = None


class Description(msgspec.Struct):
    """The typed services of a server, by their names."""

    services: dict[str, Service]


_decode = msgspec.msgpack.Decoder(Description).decode


async def describe_services(target: Channel | Peer) -> dict[str, Service]:
    """Ask a server what its typed services are. The caller bounds it.

    Args:
        target: A channel, or what stands in for one.

    Raises:
        GRPCError: It cannot be asked; UNIMPLEMENTED: it has none.
    """
    call = target.request(DESCRIBE, Cardinality.UNARY_UNARY, bytes, bytes, codec=MSGPACK)
    data = await call.count_apart().unary(b"\x80")
    try:
        return _decode(data).services
    except CANNOT_DECODE as error:
        msg = f"what the server says of its services is malformed: {error}"
        raise GRPCError(Status.INTERNAL, msg) from None


async def check(
    target: Channel | Peer, interface: Callable[..., object], service_name: str | None
) -> None:
    """Compare an interface with what a server serves. The caller bounds it.

    Args:
        target: A channel, or what stands in for one.
        interface: A class or a protocol.
        service_name: The service's name; by default the interface's.

    Raises:
        ProtocolError: Something of the interface is not served so. It names all of it.
        GRPCError: The server cannot be asked.
    """
    kind = checked_interface(interface)
    expected = described_methods(methods_of(kind).values())
    try:
        served = await describe_services(target)
    except GRPCError as error:
        if error.status is not Status.UNIMPLEMENTED:
            raise
        served = {}
    name = kind.__name__ if service_name is None else service_name
    if name not in served:
        found = None if service_name is not None else find_service(kind, served)
        if found is None:
            raise ProtocolError(missing_service(name, served), phase="call")
        name = found
    complaints = _mismatches(expected, served[name])
    if complaints:
        msg = f"{kind.__name__} is not what is served: {'; '.join(complaints)}"
        raise ProtocolError(msg, phase="call")


def missing_service(name: str, served: Mapping[str, object]) -> str:
    """What to say of a service that is not there."""
    near = nearest(name, served)
    if near is not None:
        return f"there is no service {name!r}; is it {near!r}?"
    known = ", ".join(sorted(served)[:10])
    return f"there is no service {name!r}; there is {known or 'no typed one at all'}"


def missing_method(name: str, service: Service) -> str:
    """What to say of a method that is not there."""
    near = nearest(name, service.methods)
    return f"there is no method {name!r}" + ("" if near is None else f"; is it {near!r}?")


def find_service(interface: type, served: Mapping[str, Service]) -> str | None:
    """The service that has all methods of an interface, if it is one alone.

    A protocol need not have the name of the class that it stands for.
    """
    wanted = methods_of(interface).keys()
    # One object may be served under several names.
    found: dict[frozenset[str], str] = {}
    for name, service in served.items():
        if wanted <= service.methods.keys():
            found.setdefault(frozenset(service.methods), name)
    return next(iter(found.values())) if len(found) == 1 else None


def _mismatches(expected: dict[str, dict[str, Any]], service: Service) -> list[str]:
    found: list[str] = []
    for name, wanted in expected.items():
        served = service.methods.get(name)
        if served is None:
            found.append(missing_method(name, service))
        elif wanted["type"] != served.get("type"):
            found.append(f"{name}() is {served.get('type')}, not {wanted['type']}")
        else:
            found += [f"{name}(): {one}" for one in _differences(wanted, served)]
    return found


def _differences(wanted: dict[str, Any], served: dict[str, Any]) -> list[str]:
    found: list[str] = []
    ours, theirs = _properties(wanted), _properties(served)
    for name in ours:
        if name not in theirs:
            near = nearest(name, theirs)
            hint = "" if near is None else f"; is it {near!r}?"
            found.append(f"there is no argument {name!r}{hint}")
        elif different := _types(ours[name], theirs[name]):
            found.append(f"the argument {name!r} is {different}")
    required = served.get("arguments", {}).get("required", [])
    found += [f"the argument {name!r} is missing" for name in required if name not in ours]
    for name, what in (("result", "the result"), ("items", "an item of the stream")):
        if name in wanted and (different := _types(wanted[name], served.get(name, {}))):
            found.append(f"{what} is {different}")
    return found


def _properties(method: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = method.get("arguments", {}).get("properties", {})
    return properties


def _types(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """How two types differ, as far as that is certain."""
    one, other = ours.get("type"), theirs.get("type")
    if not one or not other or one == other or {one, other} == {"integer", "number"}:
        return None
    return f"{other} there and {one} here"
