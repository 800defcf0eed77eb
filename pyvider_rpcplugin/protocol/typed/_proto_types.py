"""Python's types as those of Protocol Buffers, and values from the one to the other.

Values are taken as what msgspec makes of them for formats like JSON: objects are dicts, and so on.
"""

from __future__ import annotations

import datetime as dt
import re
import typing
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from msgspec import inspect as types

from pyvider_rpcplugin.exception import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

BUILTIN_TYPES: tuple[type, ...] = (bytes, bytearray, dt.datetime, dt.timedelta)
"""What msgspec is to leave as it is."""

MISSING: Any = object()
"""What a field that is not there has."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
# Beyond it, a double is not the integer that was meant.
_LARGEST_IN_DOUBLE = 2**53
_INT32 = range(-(2**31), 2**31)
_RESERVED_NUMBERS = range(19_000, 20_000)
_LARGEST_NUMBER = 2**29 - 1


class Kind:
    """A type.

    Attributes:
        name: What it is called in a .proto file.
        number: Its number in descriptors.
        accepts: Whether a value can be of this type, among several.
    """

    is_message: bool = False
    number: int

    def __init__(self, name: str) -> None:
        self.name: str = name

    def accepts(self, value: Any) -> bool:
        """Whether this is the type of a value."""
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """The value of a field that is no message."""
        return value

    def read(self, value: Any) -> Any:
        """What was in a field."""
        return value

    def fill(self, message: Any, value: Any) -> None:
        """Put a value into a message."""
        raise NotImplementedError


class Scalar(Kind):
    """A type that both sides have."""

    def __init__(self, name: str, number: int, *accepted: type) -> None:
        super().__init__(name)
        self.number = number
        self._accepted = accepted

    def accepts(self, value: Any) -> bool:
        return type(value) in self._accepted


class Bytes(Scalar):
    """Octets."""

    def write(self, value: Any) -> bytes:
        return bytes(value)


class EnumKind(Kind):
    """An enumeration. Its numbers are its values, if they all can be; else the order of members."""

    number: int = FieldDescriptorProto.TYPE_ENUM

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        super().__init__(name)
        prefix = _upper(name)
        fit = all(type(value) is int and value in _INT32 for value in members.values())
        numbers = list(members.values()) if fit else list(range(1, len(members) + 1))
        named = [
            (f"{prefix}_{_upper(member)}", number)
            for member, number in zip(members, numbers, strict=True)
        ]
        if 0 not in numbers:
            named.append((f"{prefix}_UNSPECIFIED", 0))
        self.members: list[tuple[str, int]] = sorted(named, key=lambda one: one[1] != 0)
        self._numbers: dict[Any, int] = dict(zip(members.values(), numbers, strict=True))
        self._values = dict(zip(numbers, members.values(), strict=True))

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (str, int)) and value in self._numbers

    def write(self, value: Any) -> int:
        return self._numbers[value]

    def read(self, value: Any) -> Any:
        if value not in self._values:
            if not value:
                return MISSING  # It was not said which.
            msg = f"the enum {self.name} has no number {value}"
            raise ValueError(msg)
        return self._values[value]


class MessageKind(Kind):
    """A type that is a message."""

    is_message = True
    number: int = FieldDescriptorProto.TYPE_MESSAGE


class Timestamp(MessageKind):
    """A point in time."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dt.datetime)

    def fill(self, message: Any, value: Any) -> None:
        if value.tzinfo is None:
            msg = "a datetime without a timezone is no point in time"
            raise ValueError(msg)
        seconds, rest = divmod(value - _EPOCH, dt.timedelta(seconds=1))
        message.seconds, message.nanos = seconds, rest // _MICROSECOND * 1000

    def read(self, value: Any) -> Any:
        return _EPOCH + dt.timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


class Duration(MessageKind):
    """A length of time."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dt.timedelta)

    def fill(self, message: Any, value: Any) -> None:
        sign = -1 if value < dt.timedelta(0) else 1
        seconds, rest = divmod(abs(value), dt.timedelta(seconds=1))
        message.seconds, message.nanos = sign * seconds, sign * (rest // _MICROSECOND) * 1000

    def read(self, value: Any) -> Any:
        return dt.timedelta(seconds=value.seconds, microseconds=int(value.nanos / 1000))


class AnyValue(MessageKind):
    """Anything that JSON has."""

    def accepts(self, value: Any) -> bool:
        return True

    def fill(self, message: Any, value: Any) -> None:
        if value is None:
            message.null_value = 0
        elif isinstance(value, bool):
            message.bool_value = value
        elif isinstance(value, (int, float)):
            if isinstance(value, int) and abs(value) > _LARGEST_IN_DOUBLE:
                msg = f"{value} is too large for a number of any type"
                raise ValueError(msg)
            message.number_value = value
        elif isinstance(value, str):
            message.string_value = value
        elif isinstance(value, (list, tuple)):
            message.list_value.SetInParent()
            for item in value:
                self.fill(message.list_value.values.add(), item)
        elif isinstance(value, dict):
            message.struct_value.SetInParent()
            for key, item in value.items():
                self.fill(message.struct_value.fields[key], item)
        else:
            msg = f"a value of any type cannot be of {type(value).__name__}"
            raise ValueError(msg)

    def read(self, value: Any) -> Any:
        kind = value.WhichOneof("kind")
        if kind == "list_value":
            return [self.read(item) for item in value.list_value.values]
        if kind == "struct_value":
            return {key: self.read(item) for key, item in value.struct_value.fields.items()}
        if kind in {None, "null_value"}:
            return None
        found = getattr(value, kind)
        if kind == "number_value" and found.is_integer() and abs(found) <= _LARGEST_IN_DOUBLE:
            return int(found)
        return found


class Field:
    """A field of a message.

    Attributes:
        name: Its name there.
        key: What it is called here.
        label: "": a value; "optional": which may be absent; "repeated"; "map".
        kind: What it holds.
        map_key: For maps: what their keys are.
        absent: What it is if it is not there.
    """

    def __init__(
        self,
        key: str,
        kind: Kind,
        number: int,
        *,
        label: str = "",
        map_key: Scalar | None = None,
        name: str | None = None,
        absent: Any = MISSING,
    ) -> None:
        self.key = key
        self.absent = absent
        self.name: str = identifier(key if name is None else name)
        self.kind = kind
        self.number = number
        self.label = label
        self.map_key = map_key

    def write(self, message: Any, value: Any) -> None:
        """Put a value into the field."""
        kind = self.kind
        if self.label == "repeated":
            repeated = getattr(message, self.name)
            for item in value:
                if kind.is_message:
                    kind.fill(repeated.add(), item)
                else:
                    repeated.append(kind.write(item))
        elif self.label == "map":
            entries = getattr(message, self.name)
            for key, item in value.items():
                if kind.is_message:
                    kind.fill(entries[key], item)
                else:
                    entries[key] = kind.write(item)
        elif kind.is_message:
            inner = getattr(message, self.name)
            inner.SetInParent()
            kind.fill(inner, value)
        else:
            setattr(message, self.name, kind.write(value))

    def read(self, message: Any) -> Any:
        """What is in the field; MISSING: nothing."""
        found = getattr(message, self.name)
        if self.label == "repeated":
            return [self.kind.read(item) for item in found]
        if self.label == "map":
            return {key: self.kind.read(item) for key, item in found.items()}
        if (self.kind.is_message or self.label) and not message.HasField(self.name):
            return self.absent
        return self.kind.read(found)


class Record(MessageKind):
    """A class, or the arguments of a method: fields by their names.

    Args:
        name: What the message is called.
        tag: The key and value that tell it from others, where it is one of several.
        is_array: Whether it is a list here, in the order of the fields.
    """

    def __init__(
        self, name: str, *, tag: tuple[str, Any] | None = None, is_array: bool = False
    ) -> None:
        super().__init__(name)
        self.fields: list[Field] = []
        self.reserved: list[int] = []
        self._tag = tag
        self._is_array = is_array

    def accepts(self, value: Any) -> bool:
        if self._is_array:
            return isinstance(value, (list, tuple)) and (
                self._tag is None or value[:1] == [self._tag[1]]
            )
        return isinstance(value, dict) and (
            self._tag is None or value.get(self._tag[0]) == self._tag[1]
        )

    def fill(self, message: Any, value: Any) -> None:
        if self._is_array:
            items = value if self._tag is None else value[1:]
            value = {field.key: item for field, item in zip(self.fields, items, strict=False)}
        for field in self.fields:
            if field.key in value and value[field.key] is not None:
                field.write(message, value[field.key])

    def read(self, value: Any) -> Any:
        found = {field.key: field.read(value) for field in self.fields}
        if self._is_array:
            items = [None if item is MISSING else item for item in found.values()]
            return items if self._tag is None else [self._tag[1], *items]
        there = {key: item for key, item in found.items() if item is not MISSING}
        return there if self._tag is None else {self._tag[0]: self._tag[1], **there}


class Wrapper(MessageKind):
    """A message around one field: for what protobuf knows only as a field, such as a list."""

    def __init__(self, name: str, field: Field, empty: Any) -> None:
        super().__init__(name)
        self.fields: list[Field] = [field]
        self._empty = empty

    def accepts(self, value: Any) -> bool:
        if self.fields[0].label == "map":
            return isinstance(value, dict)
        return isinstance(value, (list, tuple)) if self.fields[0].label == "repeated" else True

    def fill(self, message: Any, value: Any) -> None:
        if value is not None:
            self.fields[0].write(message, value)

    def read(self, value: Any) -> Any:
        found = self.fields[0].read(value)
        return self._empty if found is MISSING else found


class Entries(MessageKind):
    """A map whose keys or values protobuf's own maps do not take: a list of pairs."""

    def __init__(self, name: str, pair: Record) -> None:
        super().__init__(name)
        self.fields: list[Field] = [Field("entries", pair, 1, label="repeated")]

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict)

    def fill(self, message: Any, value: Any) -> None:
        pairs = [{"key": key, "value": item} for key, item in value.items()]
        self.fields[0].write(message, pairs)

    def read(self, value: Any) -> Any:
        return {pair["key"]: pair.get("value") for pair in self.fields[0].read(value)}


class Choice(MessageKind):
    """One of several types."""

    def __init__(self, name: str, fields: list[Field]) -> None:
        super().__init__(name)
        self.fields: list[Field] = fields

    def accepts(self, value: Any) -> bool:
        return any(field.kind.accepts(value) for field in self.fields)

    def fill(self, message: Any, value: Any) -> None:
        for field in self.fields:
            if field.kind.accepts(value):
                field.write(message, value)
                return
        msg = f"a {type(value).__name__} is none of what {self.name} may be"
        raise ValueError(msg)

    def read(self, value: Any) -> Any:
        chosen = value.WhichOneof("kind")
        for field in self.fields:
            if field.name == chosen:
                return field.read(value)
        return None


_D = FieldDescriptorProto
BOOL = Scalar("bool", _D.TYPE_BOOL, bool)
INT = Scalar("int64", _D.TYPE_INT64, int)
FLOAT = Scalar("double", _D.TYPE_DOUBLE, float, int)
STRING = Scalar("string", _D.TYPE_STRING, str)
BYTES = Bytes("bytes", _D.TYPE_BYTES, bytes, bytearray)
TIMESTAMP = Timestamp("google.protobuf.Timestamp")
DURATION = Duration("google.protobuf.Duration")
ANY = AnyValue("google.protobuf.Value")

_SIMPLE: dict[type, Kind] = {
    types.BoolType: BOOL,
    types.IntType: INT,
    types.FloatType: FLOAT,
    types.StrType: STRING,
    types.DateType: STRING,
    types.TimeType: STRING,
    types.UUIDType: STRING,
    types.DecimalType: STRING,
    types.BytesType: BYTES,
    types.ByteArrayType: BYTES,
    types.MemoryViewType: BYTES,
    types.DateTimeType: TIMESTAMP,
    types.TimeDeltaType: DURATION,
    types.AnyType: ANY,
    types.NoneType: ANY,
}
_LISTS = (types.ListType, types.SetType, types.FrozenSetType, types.VarTupleType)
_MAP_KEYS = (STRING, INT, BOOL)


class Namer:
    """Makes messages of types, each once, and sees to it that no two have the same name."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self._by_type: dict[object, Kind] = {}

    def add(self, kind: Kind) -> Kind:
        """Have a message or an enumeration in the file.

        Raises:
            ProtocolError: Another one has its name.
        """
        if self.kinds.setdefault(kind.name, kind) is not kind:
            msg = f"two different types are called {kind.name}"
            raise ProtocolError(msg, phase="proto")
        return kind

    def kind(self, info: types.Type) -> Kind:
        """What a type is, as the type of one value."""
        info, _ = unwrapped_type(info)
        simple = _SIMPLE.get(type(info))
        if simple is not None:
            return simple
        if isinstance(info, types.LiteralType):
            return _literal(info)
        if isinstance(info, (*_LISTS, types.DictType)):
            return self._wrapped(info)
        if isinstance(info, types.UnionType):
            return self._choice(info)
        return self._named(info)

    def field(
        self,
        key: str,
        info: types.Type,
        number: int,
        *,
        default: Any = MISSING,
        name: str | None = None,
    ) -> Field:
        """A field for values of a type."""
        inner, is_optional = without_none(info)
        has_default = default is not MISSING
        # Protobuf's lists and maps are empty where they are absent; what else that may mean needs
        # a message around them.
        is_optional = is_optional or (isinstance(default, (list, dict, tuple)) and bool(default))
        if isinstance(inner, _LISTS) and not is_optional:
            item, item_optional = without_none(inner.item_type)
            if not item_optional and not isinstance(item, (*_LISTS, types.DictType)):
                return Field(key, self.kind(item), number, label="repeated", name=name)
        if isinstance(inner, types.DictType) and not is_optional:
            plain = self._map(inner)
            if plain is not None:
                map_key, value = plain
                return Field(key, value, number, label="map", map_key=map_key, name=name)
        kind = self.kind(inner)
        label = "optional" if (is_optional or has_default) and not kind.is_message else ""
        can_be_none = is_optional or kind is ANY
        absent = None if can_be_none and not has_default else MISSING
        return Field(key, kind, number, label=label, name=name, absent=absent)

    def _map(self, info: types.DictType) -> tuple[Scalar, Kind] | None:
        key, _ = without_none(info.key_type)
        if isinstance(key, (types.UnionType, types.LiteralType, types.EnumType)):
            return None
        key_kind = _SIMPLE.get(type(key))
        value, is_optional = without_none(info.value_type)
        if key_kind not in _MAP_KEYS or is_optional or isinstance(value, (*_LISTS, types.DictType)):
            return None
        assert isinstance(key_kind, Scalar)  # noqa: S101 - they are
        return key_kind, self.kind(value)

    def _wrapped(self, info: types.Type) -> Kind:
        if isinstance(info, types.DictType):
            plain = self._map(info)
            if plain is not None:
                field = Field("entries", plain[1], 1, label="map", map_key=plain[0])
                return self._once(Wrapper(f"{_word(plain[0])}{_word(plain[1])}Map", field, {}))
            key = self.field("key", info.key_type, 1)
            value = self.field("value", info.value_type, 2)
            name = f"{_field_word(key)}{_field_word(value)}Entries"
            pair = Record(f"{name}Pair")
            pair.fields = [key, value]
            self._once(pair)
            return self._once(Entries(name, pair))
        item_type: types.Type = info.item_type  # type: ignore[attr-defined]  # it is a list
        item, is_optional = without_none(item_type)
        kind = self.kind(item)
        if is_optional:
            label = "" if kind.is_message else "optional"
            inner = Wrapper(f"Optional{_word(kind)}", Field("value", kind, 1, label=label), None)
            kind = self._once(inner)
        field = Field("items", kind, 1, label="repeated")
        return self._once(Wrapper(f"{_word(kind)}List", field, []))

    def _once(self, kind: Kind) -> Kind:
        """The message of that name: what it is made of is in the name."""
        return self.kinds.setdefault(kind.name, kind)

    def _choice(self, info: types.UnionType) -> Kind:
        fields: list[Field] = []
        for number, option in enumerate(_options(info), 1):
            kind = self.kind(option)
            name = (
                f"{snake(_word(kind))}_value" if not isinstance(kind, Record) else snake(kind.name)
            )
            label = "" if kind.is_message else "oneof"
            fields.append(Field(name, kind, number, label=label))
        return self._once(Choice("Or".join(_word(field.kind) for field in fields), fields))

    def _named(self, info: types.Type) -> Kind:
        key = _identity(info)
        known = self._by_type.get(key)
        if known is not None:
            return known
        if isinstance(info, types.EnumType):
            cls = info.cls
            made: Kind = EnumKind(cls.__name__, {one.name: one.value for one in cls})
            self._by_type[key] = made
            return self.add(made)
        if isinstance(info, types.TupleType):
            return self._tuple(info)
        if not hasattr(info, "fields"):
            msg = f"there is no form of Protocol Buffers for {info}"
            raise ProtocolError(msg, phase="proto")
        record = self._record(info)
        self._by_type[key] = record
        self.add(record)
        described: Sequence[types.Field] = info.fields
        numbers = field_numbers(record.name, [(one.name, one.type) for one in described])
        record.fields = [
            self.field(one.encode_name, one.type, number, default=_default(one), name=one.name)
            for one, number in zip(described, numbers, strict=True)
        ]
        return record

    def _record(self, info: Any) -> Record:
        name = self._name_of(info.cls)
        if isinstance(info, types.StructType):
            tag = None if info.tag_field is None else (info.tag_field, info.tag)
            return Record(name, tag=tag, is_array=info.array_like)
        return Record(name, is_array=isinstance(info, types.NamedTupleType))

    def _name_of(self, cls: Any) -> str:
        """The name of a class, with its parameters if it has any."""
        arguments = typing.get_args(cls)
        if not arguments:
            name: str = cls.__name__
            return name
        words = [_word(self.kind(without_none(type_info(one))[0])) for one in arguments]
        return f"{typing.get_origin(cls).__name__}Of{'And'.join(words)}"

    def _tuple(self, info: types.TupleType) -> Kind:
        items = info.item_types
        fields = [self.field(f"item_{n}", item, n) for n, item in enumerate(items, 1)]
        name = "And".join(_field_word(field) for field in fields) or "Empty"
        record = Record(f"{name}Tuple", is_array=True)
        record.fields = fields
        return self._once(record)


def type_info(kind: Any) -> types.Type:
    """What msgspec says of a type.

    Raises:
        ProtocolError: It cannot.
    """
    try:
        return types.type_info(kind)
    except Exception as error:
        msg = f"there is no form of Protocol Buffers for {kind}: {error}"
        raise ProtocolError(msg, phase="proto") from error


def unwrapped_type(info: types.Type) -> tuple[types.Type, dict[str, Any]]:
    """A type without what is only said about it, and what that is."""
    extra: dict[str, Any] = {}
    while isinstance(info, types.Metadata):
        extra = {**(info.extra or {}), **extra}
        info = info.type
    return info, extra


def without_none(info: types.Type) -> tuple[types.Type, bool]:
    """A type without None, and whether that was part of it."""
    info, _ = unwrapped_type(info)
    if not isinstance(info, types.UnionType):
        return info, False
    options = _options(info)
    if len(options) == len(info.types):
        return info, False
    inner = options[0] if len(options) == 1 else types.UnionType(tuple(options))
    return unwrapped_type(inner)[0], True


def _options(info: types.UnionType) -> list[types.Type]:
    found = [unwrapped_type(one)[0] for one in info.types]
    return [one for one in found if not isinstance(one, types.NoneType)]


def _default(field: types.Field) -> Any:
    if field.required:
        return MISSING
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default


def _identity(info: Any) -> object:
    """What two descriptions of the same type have in common."""
    return getattr(info, "cls", None) or repr(info)


def _literal(info: types.LiteralType) -> Kind:
    kinds = {type(value) for value in info.values}
    return {str: STRING, int: INT}.get(kinds.pop(), ANY) if len(kinds) == 1 else ANY


def field_numbers(where: str, fields: Iterable[tuple[str, types.Type | None]]) -> list[int]:
    """The numbers of fields: their order, but for those that say it themselves.

    Raises:
        ProtocolError: A number cannot be one, or is given twice.
    """
    numbers: list[int] = []
    for position, (name, info) in enumerate(fields, 1):
        extra = {} if info is None else unwrapped_type(info)[1]
        number = extra.get("field", position)
        if (
            type(number) is not int
            or not 0 < number <= _LARGEST_NUMBER
            or number in _RESERVED_NUMBERS
            or number in numbers
        ):
            msg = f"the field {name!r} of {where} cannot have the number {number!r}"
            raise ProtocolError(msg, phase="proto")
        numbers.append(number)
    return numbers


def _word(kind: Kind) -> str:
    """A type's name as a part of others."""
    return camel(kind.name.rpartition(".")[2])


def _field_word(field: Field) -> str:
    label = {"repeated": "List", "map": "Map", "optional": "Optional"}.get(field.label, "")
    return f"{_word(field.kind)}{label}"


def camel(name: str) -> str:
    """`like_this` as `LikeThis`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def snake(name: str) -> str:
    """`LikeThis` as `like_this`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _upper(name: str) -> str:
    return snake(identifier(name)).upper()


def identifier(name: str) -> str:
    """A name as a .proto file may have it."""
    fixed = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return fixed if re.match(r"[A-Za-z]", fixed) else f"x{fixed}"


def builtins(value: Any, convert: Callable[..., Any] = msgspec.to_builtins) -> Any:
    """A value, as the kinds here take it."""
    return convert(value, builtin_types=BUILTIN_TYPES)
