"""The same class for those who speak Protocol Buffers: its .proto file, and its messages."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.resources
import math
import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import given, settings

from pyvider_rpcplugin import plugin_client, plugin_server
from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.protocol.typed import TypedService, make_proxy, proto_of
from pyvider_rpcplugin.protocol.typed._interface import methods_of
from pyvider_rpcplugin.protocol.typed._proto_file import ProtoFile
from pyvider_rpcplugin.protocol.typed._proto_messages import ProtoMessages
from pyvider_rpcplugin.protocol.typed._proto_types import BUILTIN_TYPES, MISSING, builtins
from pyvider_rpcplugin.rpc import RawCodec, Server
from pyvider_rpcplugin.services._descriptors import Answers
from tests.protocol.typed.support import served
from tests.protocol.typed.test_values import (
    Account,
    Box,
    Circle,
    Colour,
    Options,
    Pair,
    Person,
    Point,
    Size,
    Square,
    echo_of,
    of,
    same,
    typed_values,
)


class Everything:
    """All kinds of types."""

    async def take(
        self,
        point: Point,
        boxes: list[Box[int]],
        shape: Circle | Square,
        person: Person,
        required: Point | None,
        *,
        account: Account | None = None,
        two: tuple[int, str] = (1, "a"),
        grid: list[list[int]] = [],  # noqa: B006
        points: dict[str, Point] = {},  # noqa: B006
        lists: dict[int, list[str] | None] = {},  # noqa: B006
        either: int | str | None = None,
        thing: Any = None,
        colour: Colour = Colour.RED,
        sizes: list[Size] = [],  # noqa: B006
        pair: Pair = Pair(1, "x"),  # noqa: B008
        options: Options = {},  # noqa: B006
        word: typing.Literal["a", "b"] = "a",
        at: dt.datetime | None = None,
        after: dt.timedelta = dt.timedelta(1),
        full: list[int] = [1],  # noqa: B006
        box: Box[str] | None = None,
        callback: Callable[[int], Awaitable[None]] | None = None,
    ) -> Point:
        """Take all of it.

        And more.
        """
        return point

    async def several(self, items: AsyncIterator[list[int]], scale: float = 1) -> list[Point]:
        return [Point(int(sum(item) * scale)) async for item in items]

    async def count(self, start: int) -> AsyncIterator[int]:
        for n in range(start):
            yield n

    async def echo(self, names: AsyncIterator[str], end: str = "") -> AsyncIterator[str]:
        async for name in names:
            yield name
        yield end

    async def nothing(self) -> None: ...

    async def perhaps(self, which: bool) -> Point | None:
        return Point(3) if which else None

    async def call(self, function: Callable[[int], Awaitable[None]]) -> None: ...


def compiled(text: str, folder: Path) -> FileDescriptorProto:
    """A .proto file as protoc reads it."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    (folder / "file.proto").write_text(text)
    known = importlib.resources.files("grpc_tools") / "_proto"
    with contextlib.chdir(folder):
        words = ["", f"-I{known}", "-I.", "--descriptor_set_out=out", "file.proto"]
        assert protoc.main(words) == 0, text
    return FileDescriptorSet.FromString((folder / "out").read_bytes()).file[0]


def plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """A file without what says nothing."""
    copy = FileDescriptorProto()
    copy.CopyFrom(file)
    copy.ClearField("name")
    for message in copy.message_type:
        for inner in (message, *message.nested_type):
            for field in inner.field:
                field.ClearField("json_name")
    return copy


@pytest.mark.parametrize("name", ["Everything", "some.package.Everything"])
def test_the_file_says_what_the_messages_are(name: str, tmp_path: Path) -> None:
    text = proto_of(Everything, name)
    file = ProtoFile(name, methods_of(Everything)).descriptor()
    assert plain(compiled(text, tmp_path)) == plain(file)
    assert "// All kinds of types.\nservice Everything {" in text
    assert "  // Take all of it.\n  //\n  // And more.\n  rpc take(TakeRequest)" in text
    assert "  // call calls back, which only Python can.\n" in text
    assert "returns (Point);" in text
    assert "  reserved 22;\n" in text


def test_numbers_are_the_order_or_what_is_said() -> None:
    class Numbered:
        async def take(
            self, a: typing.Annotated[int, msgspec.Meta(extra={"field": 7})], b: str = ""
        ) -> None: ...

    class Twice:
        async def take(
            self, a: typing.Annotated[int, msgspec.Meta(extra={"field": 2})], b: str = ""
        ) -> None: ...

    for method in (Numbered.take, Twice.take):
        method.__annotations__.update(typing.get_type_hints(method, globals(), include_extras=True))
    text = proto_of(Numbered)
    assert "  optional string b = 2;\n  int64 a = 7;\n" in text
    with pytest.raises(ProtocolError, match=r"field 'b' of Twice.take.* cannot have the number 2"):
        proto_of(Twice)


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(ProtocolError, match="no form of Protocol Buffers for"):
        proto_of(echo_of(complex))

    def another() -> Any:
        class Point(msgspec.Struct):
            z: int

        return Point

    with pytest.raises(ProtocolError, match="two different types are called Point"):
        proto_of(echo_of(of(tuple, (Point, another()))))
    with pytest.raises(TypeError, match="class or a protocol"):
        proto_of(Everything())  # type: ignore[arg-type]


def test_a_type_that_is_called_like_a_request_keeps_its_name() -> None:
    class TakeRequest(msgspec.Struct):
        x: int

    class Taking:
        async def take(self, request: TakeRequest) -> TakeRequest: ...  # type: ignore[empty-body]

    Taking.take.__annotations__ = {"request": TakeRequest, "return": TakeRequest}
    assert "rpc take(TakingTakeRequest) returns (TakeRequest);" in proto_of(Taking)


@given(typed_values())
@settings(max_examples=200)
def test_every_supported_type_has_a_form(typed: tuple[Any, list[Any]]) -> None:
    kind, values = typed
    methods = methods_of(echo_of(kind))
    file = ProtoFile("Echo", methods)
    classes = file.message_classes()
    shape = file.shapes["one"]
    messages = ProtoMessages(methods["one"], shape, classes)
    for value in values:
        request = classes[shape.request.name]()
        try:
            shape.request.fill(request, {"value": builtins(value)})
            result = classes[shape.reply.name].FromString(messages.result(value))
        except (ValueError, OverflowError, GRPCError) as error:
            if any(word in str(error) for word in LIMITS):
                continue
            raise
        back = messages.arguments(request.SerializeToString()).value
        assert same(value, back) or is_zero(value, back), (kind, value, back)
        if shape.result is not None:
            read = shape.result.read(result)
            read = msgspec.convert(
                None if read is MISSING else read, kind, builtin_types=BUILTIN_TYPES
            )
            assert same(value, read) or is_zero(value, read), (kind, value, read)


# Naive datetimes, integers beyond 63 bits, octets and large integers where anything may be.
LIMITS = ["without a timezone", "out of range", "too large for", "cannot be of bytes", "range"]


def is_zero(value: Any, back: Any) -> bool:
    """Whether two values differ only as Protocol Buffers make no difference."""
    return builtins(value) == builtins(back) or repr(value).replace(".0", "") == repr(back)


async def raw(channel: Any, path: str, kind: Cardinality, *messages: bytes) -> list[bytes]:
    """A call as somebody makes it who knows nothing of all this."""
    async with channel.request(path, kind, bytes, bytes, codec=RawCodec("proto")) as stream:
        for message in messages[:-1]:
            await stream.send_message(message)
        if messages:
            await stream.send_message(messages[-1], end=True)
        else:
            await stream.send_request(end=True)
        return [message async for message in stream]


async def test_the_same_service_answers_both_formats_on_one_connection() -> None:
    classes = ProtoFile("Everything", methods_of(Everything)).message_classes()

    def several(**fields: Any) -> bytes:
        items = fields.pop("items", None)
        message = classes["SeveralRequest"](**fields)
        if items is not None:
            message.items.items.extend(items)
        data: bytes = message.SerializeToString()
        return data

    def echo(**fields: Any) -> bytes:
        data: bytes = classes["EchoRequest"](**fields).SerializeToString()
        return data

    async with served(Everything()) as ours:
        channel = ours.channel
        with anyio.fail_after(5):
            kind = Cardinality.STREAM_UNARY
            path = "/Everything/several"
            first, second = several(scale=2, items=[1, 2]), several(items=[])
            [reply] = await raw(channel, path, kind, first, several(), second)
            result = classes["SeveralReply"].FromString(reply).result
            assert [point.x for point in result] == [6, 0]
            [reply] = await raw(channel, path, kind)
            assert not classes["SeveralReply"].FromString(reply).result
            start = classes["CountRequest"](start=3).SerializeToString()
            replies = await raw(channel, "/Everything/count", Cardinality.UNARY_STREAM, start)
            assert [classes["CountReply"].FromString(one).result for one in replies] == [0, 1, 2]
            kind = Cardinality.STREAM_STREAM
            said = (echo(end="z"), echo(names=""), echo(names="b"))
            replies = await raw(channel, "/Everything/echo", kind, *said)
            found = [classes["EchoReply"].FromString(one).result for one in replies]
            assert found == ["", "b", "z"]
            kind = Cardinality.UNARY_UNARY
            assert await raw(channel, "/Everything/nothing", kind, b"") == [b""]
            which = classes["PerhapsRequest"](which=True).SerializeToString()
            [reply] = await raw(channel, "/Everything/perhaps", kind, which)
            assert classes["PerhapsReply"].FromString(reply).result.x == 3
            [reply] = await raw(channel, "/Everything/perhaps", kind, b"")
            assert not classes["PerhapsReply"].FromString(reply).HasField("result")
            proxy = make_proxy(Everything, channel)
            assert [n async for n in proxy.count(2)] == [0, 1]
            await ours.check_nothing_is_left()


async def test_wrong_messages_are_invalid_arguments_that_name_the_field() -> None:
    kind = Cardinality.UNARY_UNARY
    async with served(Everything()) as ours:
        for data, complaint in [
            (b"", "missing required field `point`"),
            (b"\xff\xff\xff", r"Everything\.take\(\)"),
            (b"\x0a\x04\x1a\x02\xff\xff", r"Everything\.take\(\)"),
            (b"\x0a\x02" * 100_000, r"Everything\.take\(\)"),
        ]:
            with anyio.fail_after(5), pytest.raises(GRPCError, match=complaint) as caught:
                await raw(ours.channel, "/Everything/take", kind, data)
            assert caught.value.status is Status.INVALID_ARGUMENT
        with anyio.fail_after(5), pytest.raises(GRPCError, match="calls back") as caught:
            await raw(ours.channel, "/Everything/call", kind, b"")
        assert caught.value.status is Status.UNIMPLEMENTED


async def test_what_cannot_be_told_in_the_other_format_says_so() -> None:
    class Odd:
        async def large(self) -> int:
            return 2**63

        async def now(self) -> dt.datetime:
            return dt.datetime(2024, 2, 29)  # noqa: DTZ001 - that is the point

    class Unsayable:
        async def get(self, value: complex) -> None: ...

    kind = Cardinality.UNARY_UNARY
    server = Server([TypedService(Odd()), TypedService(Unsayable())])
    from tests.rpc.support import linked

    async with linked(server=server) as ours:
        for name, complaint in [("large", "out of range"), ("now", "without a timezone")]:
            with anyio.fail_after(5), pytest.raises(GRPCError, match=complaint) as caught:
                await raw(ours.channel, f"/Odd/{name}", kind, b"")
            assert caught.value.status is Status.INTERNAL
        with anyio.fail_after(5), pytest.raises(GRPCError, match="no form of Protocol") as caught:
            await raw(ours.channel, "/Unsayable/get", kind, b"")
        assert caught.value.status is Status.UNIMPLEMENTED


def test_nan_and_extreme_times_go_through() -> None:
    methods = methods_of(echo_of(of(tuple, (float, dt.timedelta, dt.datetime))))
    file = ProtoFile("Echo", methods)
    messages = ProtoMessages(methods["one"], file.shapes["one"], file.message_classes())
    request = file.message_classes()["OneRequest"]()
    for seconds in (-1.5, 0, 1.5, -1e10 - 0.25):
        value = (math.nan, dt.timedelta(seconds=seconds), dt.datetime(1, 1, 1, tzinfo=dt.UTC))
        request.Clear()
        file.shapes["one"].request.fill(request, {"value": builtins(value)})
        assert same(messages.arguments(request.SerializeToString()).value, value)


async def test_reflection_describes_the_service() -> None:
    class Odd:
        async def take(self, value: complex) -> None: ...

    everything = TypedService(Everything(), "some.Everything")
    pools = [*everything.descriptor_pools(), *TypedService(Odd()).descriptor_pools()]
    answers = Answers(lambda: ["some.Everything"], pools)
    request = bytes([0x22, len("some.Everything")]) + b"some.Everything"
    file = plain(ProtoFile("some.Everything", everything.methods).descriptor())
    answer = answers.answer(request)
    assert file.message_type[0].SerializeToString() in answer
    assert b"google/protobuf/timestamp.proto" in answer

    with anyio.fail_after(10):
        server = plugin_server(handler=Everything(), standalone=True, auto_mtls=False)
        async with server.serve() as address:
            async with plugin_client(address=address, auto_mtls=False) as client:
                channel = client.grpc_channel
                path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
                asked = bytes([0x22, len("Everything")]) + b"Everything"
                kind = Cardinality.STREAM_STREAM
                [answer] = await raw(channel, path, kind, asked)
                assert b"TakeRequest" in answer
