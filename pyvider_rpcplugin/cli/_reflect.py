"""What a plugin serves, as its reflection service and its typed services say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import RPCPluginError
from pyvider_rpcplugin.services._wire import bytes_field, fields

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

    from pyvider_rpcplugin.client import RPCPluginClient

_PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
_OF_PLUGINS = ("grpc.health.", "grpc.reflection.", "plugin.GRPC", "pyvider.rpcplugin.")
_LIST, _SYMBOL = 7, 4
_FILES, _SERVICES, _ERROR = 4, 6, 7


class Raw(bytes):
    """A message that nobody looks into on its way."""

    __slots__ = ()

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name, which codecs call
        """Return it."""
        return self

    @classmethod
    def FromString(cls, data: bytes) -> Raw:  # noqa: N802
        """Take it."""
        return cls(data)


class Method(msgspec.Struct, frozen=True):
    """One method of a service.

    Attributes:
        name: The method's.
        kind: "unary_unary", "unary_stream", "stream_unary" or "stream_stream".
        takes: Its request, for people.
        gives: Its reply, likewise.
        doc: Its docstring.
        schema: Of a typed method: all that is known.
    """

    name: str
    kind: str
    takes: str
    gives: str
    doc: str | None = None
    schema: dict[str, Any] | None = None


class Service(msgspec.Struct, frozen=True):
    """A service that a plugin has.

    Attributes:
        name: Its full name.
        form: "protobuf", "typed", or "unknown" where nothing but its name is known.
        methods: By their names.
        own: Whether it is the application's, and not one that all plugins have.
    """

    name: str
    form: Literal["protobuf", "typed", "unknown"]
    methods: dict[str, Method]
    own: bool


class Catalogue:
    """All services of a plugin, and the messages of those with Protocol Buffers."""

    def __init__(self, services: dict[str, Service], pool: DescriptorPool | None) -> None:
        self.services = services
        self._pool = pool

    def find(self, name: str) -> tuple[Service, Method]:
        """Find a method by `service/method`; parts that leave no doubt are enough.

        Raises:
            RPCPluginError: There is none, or more than one.
        """
        wanted, slash, method = name.removeprefix("/").rpartition("/")
        if not slash and "." in name:
            wanted, _, method = name.rpartition(".")
        found = [
            (service, service.methods[method])
            for service in self.services.values()
            if method in service.methods
            and (not wanted or service.name == wanted or service.name.endswith(f".{wanted}"))
        ]
        own = [one for one in found if one[0].own]
        if len(found) != 1 and len(own) == 1:
            found = own
        if len(found) == 1:
            return found[0]
        known = ", ".join(
            f"{service.name}/{one}"
            for service in self.services.values()
            if service.own
            for one in service.methods
        )
        what = "there is no method" if not found else "more than one method is meant by"
        msg = f"{what} {name!r}"
        raise RPCPluginError(msg, f"there are: {known or 'none'}", phase="call")

    def message_types(self, service: Service, method: Method) -> tuple[Any, Any]:
        """The classes of a method's request and reply."""
        from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415 - not for typed

        assert self._pool is not None  # noqa: S101 - a service of this form came from it
        descriptor: Any = self._pool.FindServiceByName(service.name)
        found = descriptor.methods_by_name[method.name]
        return GetMessageClass(found.input_type), GetMessageClass(found.output_type)


async def catalogue_of(client: RPCPluginClient) -> Catalogue:
    """Ask a plugin what it serves, in both ways.

    Raises:
        GRPCError: It cannot be asked. That it has no such service is no error.
    """
    services: dict[str, Service] = {}
    pool: DescriptorPool | None = None
    names: list[str] = []
    for path in _PATHS:
        try:
            pool, names = await _reflected(client, path)
        except GRPCError as exc:
            if exc.status is not Status.UNIMPLEMENTED:
                raise
        else:
            break
    for name in names:
        services[name] = _protobuf_service(name, pool)
    try:
        described = await client.describe()
    except GRPCError as exc:
        if exc.status is not Status.UNIMPLEMENTED:
            raise
        described = {}
    for name, service in described.items():
        methods = {one: _typed_method(one, said) for one, said in service.methods.items()}
        services[name] = Service(name, "typed", methods, own=True)
    return Catalogue(dict(sorted(services.items(), key=lambda item: not item[1].own)), pool)


async def _reflected(client: RPCPluginClient, path: str) -> tuple[DescriptorPool, list[str]]:
    from google.protobuf.descriptor_pool import DescriptorPool  # noqa: PLC0415 - takes its time

    pool = DescriptorPool()
    channel: Any = client.grpc_channel
    async with channel.request(path, Cardinality.STREAM_STREAM, Raw, Raw) as stream:

        async def ask(number: int, value: bytes) -> dict[int, bytes]:
            await stream.send_message(Raw(bytes_field(number, value)))
            answer = await stream.recv_message()
            return {one: value for one, value in fields(answer or b"") if isinstance(value, bytes)}

        listed = await ask(_LIST, b"*")
        names = [
            name.decode()
            for number, service in fields(listed.get(_SERVICES, b""))
            if number == 1 and isinstance(service, bytes)
            for number_, name in fields(service)
            if number_ == 1 and isinstance(name, bytes)
        ]
        known: set[str] = set()
        for name in names:
            answer = await ask(_SYMBOL, name.encode())
            # Of a service without Protocol Buffers there is no description.
            if _ERROR not in answer:
                _add_files(pool, answer.get(_FILES, b""), known)
        await stream.end()
    return pool, names


def _add_files(pool: DescriptorPool, answer: bytes, known: set[str]) -> None:
    """Add the files of an answer, each after those that it imports."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415 - see above

    files: dict[str, Any] = {}
    for number, data in fields(answer):
        if number == 1 and isinstance(data, bytes):
            file = FileDescriptorProto.FromString(data)
            files[file.name] = file

    def add(file: Any) -> None:
        if file.name in known:
            return
        known.add(file.name)
        for name in file.dependency:
            if name in files:
                add(files[name])
        pool.Add(file)

    for file in files.values():
        add(file)


def _protobuf_service(name: str, pool: Any) -> Service:
    own = not name.startswith(_OF_PLUGINS)
    try:
        descriptor = pool.FindServiceByName(name)
        methods = {
            method.name: Method(
                method.name,
                _kind(method.client_streaming, method.server_streaming),
                method.input_type.full_name,
                method.output_type.full_name,
            )
            for method in descriptor.methods
        }
    except KeyError:
        return Service(name, "unknown", {}, own)
    return Service(name, "protobuf", methods, own)


def _kind(takes_many: bool, gives_many: bool) -> str:
    return f"{'stream' if takes_many else 'unary'}_{'stream' if gives_many else 'unary'}"


def _typed_method(name: str, said: dict[str, Any]) -> Method:
    arguments = said.get("arguments", {})
    required = arguments.get("required", [])
    takes = [
        f"{one}: {type_of(schema)}{'' if one in required else ' = ...'}"
        for one, schema in arguments.get("properties", {}).items()
    ]
    if (items := said.get("items")) is not None:
        takes.append(f"{items.get('name', 'items')}: stream of {type_of(items)}")
    return Method(
        name,
        said.get("type", "unary_unary"),
        ", ".join(takes),
        type_of(said.get("result", {})),
        said.get("doc"),
        said,
    )


def type_of(schema: dict[str, Any]) -> str:
    """What a JSON schema describes, in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " | ".join(type_of(one) for one in schema["anyOf"])
    kind = schema.get("type", "any")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {type_of(schema['items'])}"
    if schema.get("contentEncoding") == "base64":
        return "bytes"
    return str(kind)
