"""The .proto file of an interface, and the messages in it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from google.protobuf import (
    descriptor_pool,
    duration_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from msgspec import inspect as types

from pyvider_rpcplugin.exception import ProtocolError

from ._interface import REQUIRED, checked_interface, methods_of
from ._messages import arguments_struct
from ._proto_types import (
    MISSING,
    Choice,
    EnumKind,
    Field,
    Kind,
    MessageKind,
    Namer,
    Record,
    camel,
    field_numbers,
    type_info,
    without_none,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._interface import Method

__all__ = ["ProtoFile", "proto_of"]

_KNOWN = (timestamp_pb2, duration_pb2, struct_pb2)
_INDENT = "  "


class Shape:
    """What the messages of one method are.

    Attributes:
        request: The message of its arguments.
        item: The field of the request that holds an item of the streamed argument.
        reply: The message of a result.
        result: The field of the reply that holds it; None: the reply is the result itself.
        is_nothing: Whether there is no result.
    """

    def __init__(
        self, request: Record, item: Field | None, reply: MessageKind, result: Field | None
    ) -> None:
        self.request = request
        self.item = item
        self.reply = reply
        self.result = result
        self.is_nothing: bool = result is None and not getattr(reply, "fields", True)


class ProtoFile:
    """An interface in terms of Protocol Buffers.

    Args:
        name: The service's full name.
        methods: Its methods. Those that need to call back are left out.

    Raises:
        ProtocolError: There is no form for one of the types.
    """

    def __init__(self, name: str, methods: Mapping[str, Method], doc: str | None = None) -> None:
        self.package, _, self.service = name.rpartition(".")
        self._doc = doc
        self._namer = Namer()
        self._methods = {one: method for one, method in methods.items() if not _calls_back(method)}
        self._left_out = [one for one in methods if one not in self._methods]
        # Those of the types first: the names of requests and replies give way to them.
        fields = {one: self._fields_of(method) for one, method in self._methods.items()}
        results = {one: self._result_of(method) for one, method in self._methods.items()}
        self.shapes: dict[str, Shape] = {
            one: self._shape(method, *fields[one], results[one])
            for one, method in self._methods.items()
        }

    def _fields_of(self, method: Method) -> tuple[list[Field], Field | None, list[int]]:
        struct: Any = type_info(arguments_struct(method))
        infos = {one.name: one.type for one in struct.fields}
        lent = {one.name for one in method.parameters if one.reference is not None}
        names = list(method.signature.parameters)[1:]
        streamed = [one for one in names if one not in infos and one not in lent]
        said = {**infos, **{one: type_info(method.item) for one in streamed}}
        numbers = field_numbers(method.where, [(one, said.get(one)) for one in names])
        fields: list[Field] = []
        item: Field | None = None
        reserved: list[int] = []
        for name, number in zip(names, numbers, strict=True):
            if name in lent:
                reserved.append(number)
            elif name in streamed:
                item = self._item(name, said[name], number)
            else:
                default = method.signature.parameters[name].default
                default = MISSING if default is REQUIRED else default
                fields.append(self._namer.field(name, infos[name], number, default=default))
        return fields, item, reserved

    def _item(self, name: str, info: types.Type, number: int) -> Field:
        """A field of which it is known whether something is in it."""
        field = self._namer.field(name, info, number, default=None)
        if field.label in {"repeated", "map"}:
            return Field(name, self._namer.kind(without_none(info)[0]), number)
        return field

    def _result_of(self, method: Method) -> Kind | Field | None:
        info = type_info(method.result)
        inner, is_optional = without_none(info)
        if isinstance(inner, types.NoneType):
            return None
        if not is_optional:
            kind = self._namer.kind(inner) if hasattr(inner, "fields") else None
            if isinstance(kind, Record):
                return kind
        return self._namer.field("result", info, 1)

    def _shape(
        self,
        method: Method,
        fields: list[Field],
        item: Field | None,
        reserved: list[int],
        result: Kind | Field | None,
    ) -> Shape:
        request = Record(self._free_name(method, "Request"))
        request.fields, request.reserved = list(fields), reserved
        self._namer.add(request)
        if isinstance(result, MessageKind):
            return Shape(request, item, result, None)
        reply = Record(self._free_name(method, "Reply"))
        if isinstance(result, Field):
            reply.fields.append(result)
        self._namer.add(reply)
        return Shape(request, item, reply, result if isinstance(result, Field) else None)

    def _free_name(self, method: Method, what: str) -> str:
        name = f"{camel(method.name)}{what}"
        return name if name not in self._namer.kinds else f"{self.service}{name}"

    # --- descriptors -------------------------------------------------------------------------

    def descriptor(self) -> FileDescriptorProto:
        """The file, as protoc would have it."""
        file = FileDescriptorProto(
            name=f"{self._full(self.service).replace('.', '/')}.proto", syntax="proto3"
        )
        if self.package:
            file.package = self.package
        shapes = self.shapes.values()
        items = {shape.request.name: shape.item for shape in shapes if shape.item is not None}
        for kind in self._namer.kinds.values():
            if isinstance(kind, EnumKind):
                _describe_enum(file.enum_type.add(), kind)
            else:
                self._describe(file.message_type.add(), kind, items.get(kind.name))
        service = file.service.add(name=self.service)
        for name, shape in self.shapes.items():
            method = self._methods[name]
            described = service.method.add(
                name=name,
                input_type=f".{self._full(shape.request.name)}",
                output_type=f".{self._full(shape.reply.name)}",
            )
            if method.incoming is not None:
                described.client_streaming = True
            if method.streams:
                described.server_streaming = True
        used = {field.type_name for one in _all_messages(file) for field in one.field}
        for module in _KNOWN:
            known = {
                f".{one.full_name}" for one in module.DESCRIPTOR.message_types_by_name.values()
            }
            if used & known:
                file.dependency.append(module.DESCRIPTOR.name)
        return file

    def _full(self, name: str) -> str:
        return f"{self.package}.{name}" if self.package else name

    def _describe(self, message: DescriptorProto, kind: Any, item: Field | None) -> None:
        message.name = kind.name
        fields: list[Field] = [*kind.fields] if item is None else [*kind.fields, item]
        if isinstance(kind, Choice):
            message.oneof_decl.add(name="kind")
        presence: list[FieldDescriptorProto] = []
        for field in sorted(fields, key=lambda one: one.number):
            described = self._describe_field(message, field)
            if isinstance(kind, Choice):
                described.oneof_index = 0
            elif described.proto3_optional:
                presence.append(described)
        for described in presence:
            described.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{described.name}")
        for number in getattr(kind, "reserved", ()):
            message.reserved_range.add(start=number, end=number + 1)

    def _describe_field(self, message: DescriptorProto, field: Field) -> FieldDescriptorProto:
        if field.name in {one.name for one in message.field}:
            msg = f"two fields of {message.name} are called {field.name}"
            raise ProtocolError(msg, phase="proto")
        described: FieldDescriptorProto = message.field.add(name=field.name, number=field.number)
        repeated = field.label in {"repeated", "map"}
        described.label = (
            FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        )
        if field.map_key is not None:
            entry = message.nested_type.add(name=f"{camel(field.name)}Entry")
            entry.options.map_entry = True
            for part in (Field("key", field.map_key, 1), Field("value", field.kind, 2)):
                self._describe_field(entry, part)
            described.type = FieldDescriptorProto.TYPE_MESSAGE
            described.type_name = f".{self._full(message.name)}.{entry.name}"
            return described
        described.type = FieldDescriptorProto.Type.ValueType(field.kind.number)
        if field.kind.is_message or isinstance(field.kind, EnumKind):
            name = field.kind.name
            described.type_name = f".{name}" if "." in name else f".{self._full(name)}"
        if field.label == "optional":
            described.proto3_optional = True
        return described

    def pool(self) -> descriptor_pool.DescriptorPool:
        """Make a pool that has the file, and those that it imports."""
        pool = descriptor_pool.DescriptorPool()
        for module in _KNOWN:
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        pool.AddSerializedFile(self.descriptor().SerializeToString())
        return pool

    def message_classes(self) -> dict[str, Any]:
        """The classes of the messages, by their names in the file."""
        pool = self.pool()
        return {
            one.name: message_factory.GetMessageClass(
                pool.FindMessageTypeByName(self._full(one.name))
            )
            for one in self.descriptor().message_type
        }

    # --- text --------------------------------------------------------------------------------

    def text(self, go_package: str | None = None) -> str:
        """The file, as a person reads it."""
        file = self.descriptor()
        parts = ['syntax = "proto3";']
        if self.package:
            parts.append(f"package {self.package};")
        if go_package is not None:
            parts.append(f'option go_package = "{go_package}";')
        if file.dependency:
            parts.append("\n".join(f'import "{name}";' for name in file.dependency))
        parts.append(self._service_text(file))
        parts += [self._message_text(message) for message in file.message_type]
        parts += [_enum_text(one) for one in file.enum_type]
        return "\n\n".join(parts) + "\n"

    def _service_text(self, file: FileDescriptorProto) -> str:
        lines = [*_comment(self._doc), f"service {self.service} {{"]
        for method in file.service[0].method:
            lines += [_INDENT + line for line in _comment(self._methods[method.name].doc)]
            taken = f"{'stream ' * method.client_streaming}{self._short(method.input_type)}"
            given = f"{'stream ' * method.server_streaming}{self._short(method.output_type)}"
            lines.append(f"{_INDENT}rpc {method.name}({taken}) returns ({given});")
        lines += [f"{_INDENT}// {one} calls back, which only Python can." for one in self._left_out]
        return "\n".join([*lines, "}"])

    def _short(self, name: str) -> str:
        prefix = f".{self.package}." if self.package else "."
        return name.removeprefix(prefix if name.startswith(prefix) else ".")

    def _message_text(self, message: DescriptorProto) -> str:
        entries = {one.name: one for one in message.nested_type}
        lines: list[str] = []
        for field in message.field:
            label, kind = "", self._type_text(field)
            entry = entries.get(field.type_name.rpartition(".")[2])
            if entry is not None:
                key, value = (self._type_text(one) for one in entry.field)
                kind = f"map<{key}, {value}>"
            elif field.label == FieldDescriptorProto.LABEL_REPEATED:
                label = "repeated "
            elif field.proto3_optional:
                label = "optional "
            lines.append(f"{label}{kind} {field.name} = {field.number};")
        if message.oneof_decl and message.oneof_decl[0].name == "kind":
            lines = ["oneof kind {", *(_INDENT + line for line in lines), "}"]
        lines += [f"reserved {one.start};" for one in message.reserved_range]
        if not lines:
            return f"message {message.name} {{}}"
        body = textwrap.indent("\n".join(lines), _INDENT)
        return f"message {message.name} {{\n{body}\n}}"

    def _type_text(self, field: FieldDescriptorProto) -> str:
        if field.type_name:
            return self._short(field.type_name)
        name: str = FieldDescriptorProto.Type.Name(field.type)
        return name.removeprefix("TYPE_").lower()


def _calls_back(method: Method) -> bool:
    return any(
        one.reference is not None and one.default is REQUIRED and not one.is_optional
        for one in method.parameters
    )


def _describe_enum(described: EnumDescriptorProto, kind: EnumKind) -> None:
    described.name = kind.name
    for name, number in kind.members:
        described.value.add(name=name, number=number)


def _all_messages(file: FileDescriptorProto) -> list[DescriptorProto]:
    return [inner for one in file.message_type for inner in (one, *one.nested_type)]


def _enum_text(enum: EnumDescriptorProto) -> str:
    lines = [f"{_INDENT}{one.name} = {one.number};" for one in enum.value]
    return "\n".join([f"enum {enum.name} {{", *lines, "}"])


def _comment(text: str | None) -> list[str]:
    return [] if not text else [f"// {line}".rstrip() for line in text.splitlines()]


def proto_of(
    interface: type, service_name: str | None = None, *, go_package: str | None = None
) -> str:
    """Write the .proto file of a typed class, by which others call what serves it.

    The numbers of fields are the order of arguments, and of the fields of classes: what is added
    has to come last. `Annotated[int, msgspec.Meta(extra={"field": 7})]` gives a number instead.

    Args:
        interface: A class, or a typing.Protocol.
        service_name: The service's full name, with its package; by default the class's.
        go_package: Where Go imports what is generated from it.

    Raises:
        ProtocolError: There is no form for one of the types.
    """
    kind = checked_interface(interface)
    name = kind.__name__ if service_name is None else service_name
    return ProtoFile(name, methods_of(kind), kind.__doc__).text(go_package)
