"""Terraform's values and their types (cty), as Python has them.

An object is an instance of a `msgspec.Struct`, and each of its fields an attribute. Fields are
annotated with str, bool, int, float, list, set and dict of those, other objects, and any of them
`| None`. A value that will be known only once something has been made is UNKNOWN, whatever its type.
"""

from __future__ import annotations

import types
import typing
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec

_PRIMITIVES = {str: "string", bool: "bool", int: "number", float: "number"}
_COLLECTIONS = {list: "list", set: "set", dict: "map"}

ObjectT = TypeVar("ObjectT", bound=msgspec.Struct)


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Any = _Unknown()


def plain(annotation: Any) -> Any:
    """Return an annotation without what is said beside the type, and without `| None`."""
    if typing.get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        [annotation] = set(typing.get_args(annotation)) - {types.NoneType}
    return annotation


def collection(annotation: Any) -> tuple[Any, Any]:
    """Return list, set or dict, and of what it is; None and the annotation if it is none of them."""
    annotation = plain(annotation)
    origin = typing.get_origin(annotation)
    if origin in _COLLECTIONS:
        return origin, plain(typing.get_args(annotation)[-1])
    return None, annotation


def is_object(annotation: Any) -> bool:
    """Whether values of it have attributes of their own."""
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def type_of(annotation: Any) -> Any:
    """Return the type in the form that it has in JSON: `"string"`, `["set", "string"]`."""
    kind, element = collection(annotation)
    if kind is not None:
        return [_COLLECTIONS[kind], type_of(element)]
    if is_object(element):
        fields = msgspec.structs.fields(element)
        return ["object", {field.name: type_of(field.type) for field in fields}]
    return _PRIMITIVES[element]


def encode(value: Any) -> bytes:
    """Return the MessagePack of an object, or of None."""
    return _encoder.encode(value)


def _extension(value: object) -> msgspec.msgpack.Ext:
    if value is UNKNOWN:
        return msgspec.msgpack.Ext(0, b"\0")
    msg = f"{type(value).__name__} is no value of Terraform's"
    raise NotImplementedError(msg)


_encoder = msgspec.msgpack.Encoder(enc_hook=_extension)


def decode(data: bytes, of: type[ObjectT]) -> ObjectT | None:
    """Make an object of its MessagePack.

    Raises:
        ValueError: A number does not fit its field.
    """
    # There are several extensions. They tell what is known of an unknown value nevertheless.
    made: ObjectT | None = build(msgspec.msgpack.decode(data, ext_hook=lambda *_: UNKNOWN), of)
    return made


def build(data: Any, annotation: Any) -> Any:
    """Make a value of plain data, such as that of JSON."""
    if data is None or data is UNKNOWN:
        return data
    kind, element = collection(annotation)
    if kind is dict:
        return {key: build(value, element) for key, value in data.items()}
    if kind is not None:
        return kind(build(value, element) for value in data)
    if is_object(element):
        # Also where it has fewer attributes: one that an older version of the provider has saved.
        fields = msgspec.structs.fields(element)
        return element(**{field.name: build(data.get(field.name), field.type) for field in fields})
    return whole(data) if element is int else element(data)


def whole(data: Any) -> int:
    """Make an int of a number, which is text if MessagePack has no form for it."""
    exact = Decimal(data)
    if exact != int(exact) or not -(2**63) <= exact < 2**64:
        msg = f"{data} is no whole number of 64 bits"
        raise ValueError(msg)
    return int(exact)
