"""What is said of the attributes of resources, data sources and providers, beside their types."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from cty import collection, is_object, type_of
from tfplugin6_pb2 import Schema

NESTING = {
    None: Schema.Object.SINGLE,
    list: Schema.Object.LIST,
    set: Schema.Object.SET,
    dict: Schema.Object.MAP,
}


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of an attribute beside its type: `name: Annotated[str, required("...")]`."""

    description: str
    required: bool = False
    optional: bool = False
    computed: bool = False
    # What it is if the user says nothing.
    default: Any = None
    # Whether another value takes another object, which is made once the first is deleted.
    replaces: bool = False


def required(description: str, *, replaces: bool = False) -> Attribute:
    """Describe what the user has to say."""
    return Attribute(description=description, required=True, replaces=replaces)


def optional(description: str, *, default: Any = None, replaces: bool = False) -> Attribute:
    """Describe what the user may say."""
    # To Terraform, what is there if nobody has said it is computed.
    return Attribute(
        description=description, optional=True, computed=default is not None, default=default,
        replaces=replaces,
    )  # fmt: skip


def computed(description: str) -> Attribute:
    """Describe what the provider says."""
    return Attribute(description=description, computed=True)


def attributes_of(of: type[msgspec.Struct]) -> dict[str, Attribute]:
    """Return what is said of the attributes."""
    described = {}
    for field in msgspec.structs.fields(of):
        [described[field.name]] = [it for it in get_args(field.type) if isinstance(it, Attribute)]
    return described


def schema(of: type[msgspec.Struct]) -> Schema:
    """Describe a class as Terraform wants it."""
    return Schema(block=Schema.Block(attributes=schemas(of), description=of.__doc__ or ""))


def schemas(of: type[msgspec.Struct]) -> list[Schema.Attribute]:
    """Describe the attributes."""
    types = {field.name: field.type for field in msgspec.structs.fields(of)}
    return [schema_of(name, types[name], it) for name, it in attributes_of(of).items()]


def schema_of(name: str, annotation: Any, attribute: Attribute) -> Schema.Attribute:
    described = Schema.Attribute(
        name=name,
        description=attribute.description,
        required=attribute.required,
        optional=attribute.optional,
        computed=attribute.computed,
    )
    kind, element = collection(annotation)
    if is_object(element):
        nested = Schema.Object(attributes=schemas(element), nesting=NESTING[kind])
        described.nested_type.CopyFrom(nested)
    else:
        described.type = msgspec.json.encode(type_of(annotation))
    return described
