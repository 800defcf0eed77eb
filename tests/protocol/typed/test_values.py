"""What typed services carry: every supported type, both ways, and what is beyond the limits."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import operator
import resource
import typing
import uuid
from collections.abc import AsyncIterator
from typing import Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import anyio
import attrs
import msgspec
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import given, settings, strategies as st

from pyvider_rpcplugin.protocol.typed import TypedService, make_proxy
from pyvider_rpcplugin.rpc import RawCodec, RPCOptions, Server
from tests.protocol.typed.support import called, served
from tests.rpc.support import linked

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = -9


class Point(msgspec.Struct):
    x: int
    y: float = 0.0
    name: str | None = None


class Box(msgspec.Struct, Generic[T]):
    content: T


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float
    inner: Circle | Square | None = None


@dataclasses.dataclass
class Person:
    name: str
    born: dt.date
    friends: list[Person] = dataclasses.field(default_factory=list)


@attrs.define
class Account:
    owner: str
    amount: decimal.Decimal


class Pair(NamedTuple):
    left: int
    right: str


class Options(TypedDict, total=False):
    depth: int
    path: str


UserId = NewType("UserId", int)

TIMEZONES = st.timezones() | st.just(dt.UTC)
# What every timezone has, without one, as hypothesis wants it.
EARLIEST = dt.datetime.min + dt.timedelta(2)  # noqa: DTZ901
LATEST = dt.datetime.max - dt.timedelta(2)  # noqa: DTZ901
INTEGERS = st.integers(-(2**63), 2**64 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
CIRCLES = st.builds(Circle, st.floats())

LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, INTEGERS),
    (float, st.floats()),
    (str, TEXT),
    (bytes, st.binary(max_size=40)),
    (bytearray, st.binary(max_size=40).map(bytearray)),
    (dt.datetime, st.datetimes()),
    (dt.datetime, st.datetimes(EARLIEST, LATEST, timezones=TIMEZONES)),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas(dt.timedelta(-10_000), dt.timedelta(10_000))),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (uuid.UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Literal[1, 2], st.sampled_from([1, 2])),
    (UserId, INTEGERS),
    (Point, st.builds(Point, INTEGERS, st.floats(), st.none() | TEXT)),
    (Box[int], st.builds(Box, INTEGERS)),
    (Circle | Square, CIRCLES | st.builds(Square, st.floats(), CIRCLES)),
    (Person, st.builds(Person, TEXT, st.dates(), st.lists(st.builds(Person, TEXT, st.dates()), max_size=2))),
    (Account, st.builds(Account, TEXT, st.decimals(allow_nan=False, allow_infinity=False))),
    (Pair, st.builds(Pair, INTEGERS, TEXT)),
    (Options, st.fixed_dictionaries({}, optional={"depth": INTEGERS, "path": TEXT})),
    (int | str | None, INTEGERS | TEXT | st.none()),
    (typing.Annotated[int, msgspec.Meta(ge=0)], st.integers(0, 100)),
    (Any, st.recursive(st.none() | st.booleans() | INTEGERS | st.floats() | TEXT | st.binary(max_size=9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)),
]  # fmt: skip

HASHABLE = [pair for pair in LEAVES if pair[0] in {int, str, bytes, uuid.UUID, dt.date}]


# Types that are made here: type checkers know only those that are written down.
of: Any = operator.getitem


def optional(kind: Any) -> Any:
    """A type, or None."""
    return typing.Optional[kind]  # noqa: UP045 - None alone knows no |


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Types that hold others, with what makes their values."""

    def around(pair):
        kind, values = pair
        return st.sampled_from(
            [
                (of(list, kind), st.lists(values, max_size=3)),
                (of(tuple, (kind, ...)), st.lists(values, max_size=3).map(tuple)),
                (of(tuple, (kind, bool)), st.tuples(values, st.booleans())),
                (of(dict, (str, kind)), st.dictionaries(TEXT, values, max_size=3)),
                (of(dict, (int, kind)), st.dictionaries(INTEGERS, values, max_size=3)),
                (of(Box, kind), st.builds(Box, values)),
                (optional(kind), values | st.none()),
            ]
        )

    return inner.flatmap(around)


def sets():
    for kind, values in HASHABLE:
        yield of(set, kind), st.sets(values, max_size=3)
        yield of(frozenset, kind), st.frozensets(values, max_size=3)


TYPES = st.recursive(st.sampled_from([*LEAVES, *sets()]), containers, max_leaves=4)


@st.composite
def typed_values(draw: Any) -> tuple[Any, list[Any]]:
    kind, values = draw(TYPES)
    return kind, draw(st.lists(values, min_size=1, max_size=3))


def echo_of(kind):
    """A service whose methods take and return one type."""

    async def one(self, value, *, other=None):
        assert other is None
        return value

    async def many(self, values, *, first):
        yield first
        async for value in values:
            yield value

    one.__annotations__ = {
        "value": kind,
        "other": optional(kind),
        "return": kind,
    }
    many.__annotations__ = {
        "values": of(AsyncIterator, kind),
        "first": kind,
        "return": of(AsyncIterator, kind),
    }
    members: dict[str, Any] = {"one": one, "many": many}
    return type("Echo", (), members)


def same(a: Any, b: Any) -> bool:
    """Whether values are equal and of equal types; NaN is itself."""
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, msgspec.Struct):
        return same(msgspec.structs.astuple(a), msgspec.structs.astuple(b))
    return bool(a == b)


@given(typed_values())
@settings(max_examples=60)
async def test_every_supported_type_goes_both_ways(typed: tuple[Any, list[Any]]) -> None:
    kind, values = typed

    async def all_values() -> AsyncIterator[Any]:
        for value in values:
            yield value

    with anyio.fail_after(5):
        async with called(echo_of(kind)()) as echo:
            for value in values:
                assert same(await echo.one(value), value)
            several = [value async for value in echo.many(all_values(), first=values[0])]
            assert same(several, [values[0], *values])


class Holder:
    """Takes what it is annotated to take."""

    async def number(self, value: int) -> int:
        return value

    async def data(self, value: bytes) -> bytes:
        return value

    async def anything(self, value: Any) -> Any:
        return value

    async def point(self, value: Point) -> Point:
        return value

    async def wrong(self, which: str) -> int:
        found: Any = {"text": "x", "large": 2**64, "object": object(), "deep": TOO_DEEP}
        return found[which]

    async def count(self, values: AsyncIterator[int]) -> int:
        return len([value async for value in values])


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


# From Python 3.14 on the stack's size is the limit, and not a number of levels.
TOO_DEEP = nested(250_000)


async def test_ten_mebibytes_go_both_ways() -> None:
    data = bytes(range(256)) * 40_960
    async with called(Holder()) as holder:
        with anyio.fail_after(5):
            assert await holder.data(data) == data


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
async def test_an_integer_beyond_64_bits_is_refused_by_name(value: int) -> None:
    async with called(Holder()) as holder:
        assert await holder.number(2**64 - 1) == 2**64 - 1
        assert await holder.number(-(2**63)) == -(2**63)
        with pytest.raises(
            GRPCError, match=r"argument 'value' of Holder\.number\(\) cannot be"
        ) as e:
            await holder.number(value)
        assert e.value.status is Status.INVALID_ARGUMENT


async def test_what_is_nested_too_deeply_is_refused_on_both_sides() -> None:
    async with called(Holder()) as holder:
        assert await holder.anything(nested(50)) == nested(50)
        with pytest.raises(GRPCError, match="nested too deeply") as caught:
            await holder.anything(TOO_DEEP)
        assert caught.value.status is Status.INVALID_ARGUMENT
        with pytest.raises(GRPCError, match="nested too deeply") as caught:
            await holder.wrong("deep")
        assert caught.value.status is Status.INTERNAL


@pytest.mark.parametrize(
    ("which", "complaint"),
    [
        ("text", r"what Holder\.wrong\(\) returned is not what was expected: Expected `int`"),
        ("large", r"what Holder\.wrong\(\) returned cannot be sent: .*2\*\*64"),
        ("object", r"what Holder\.wrong\(\) returned cannot be sent: .*object"),
    ],
)
async def test_a_wrong_result_names_the_method(which: str, complaint: str) -> None:
    async with called(Holder()) as holder:
        with pytest.raises(GRPCError, match=complaint) as caught:
            await holder.wrong(which)
        assert caught.value.status is Status.INTERNAL


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda holder: holder.number("1"), "'value' is not what it should be: Expected `int`"),
        (lambda holder: holder.number(object()), "'value' of .* cannot be sent"),
        (lambda holder: holder.point({"x": 1, "y": "z"}), r"`float`, got `str` - at `\$\.y`"),
        (lambda holder: holder.point({"y": 1}), "missing required field `x`"),
    ],
)
async def test_a_wrong_argument_is_named(call: Any, complaint: str) -> None:
    async with called(Holder()) as holder:
        with pytest.raises(GRPCError, match=complaint) as caught:
            await call(holder)
        assert caught.value.status is Status.INVALID_ARGUMENT


HOSTILE = {
    "nothing": b"",
    "no map": b"\xc0",
    "a list": b"\x91\x01",
    "a reserved octet": b"\xc1",
    "half a map": b"\x81\xa5val",
    "another key": b"\x81\xa5othe\x01",
    "a key that is no text": b"\x81\x01\x01",
    "text that is no UTF-8": b"\x81\xa5value\xa2\xff\xff",
    "a key that is no UTF-8": b"\x81\xa2\xff\xff\x01",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a list of four billion": b"\x81\xa5value\xdd\xff\xff\xff\xff",
    "bytes of four gigabytes": b"\x81\xa5value\xc6\xff\xff\xff\xff",
    "an extension": b"\x81\xa5value\xc9\xff\xff\xff\xff\x05",
    "a bad time": b"\x81\xa5value\xd7\xff" + b"\xff" * 8,
    "lists in lists": b"\x81\xa5value" + b"\x91" * 1_000_000 + b"\xc0",
    "maps in maps": b"\x81\xa5value" + b"\x81\xa1a" * 300_000 + b"\xc0",
    "unknown lists in lists": b"\x81\xa5other" + b"\x91" * 1_000_000 + b"\xc0",
    "more than one": b"\x81\xa5value\x01\x01",
    "the same twice": b"\x82\xa5value\x01\xa5value\xc1",
}


@pytest.mark.parametrize("method", ["number", "anything", "point", "data"])
async def test_hostile_messages_are_refused_and_harm_nobody(method: str) -> None:
    kind = Cardinality.UNARY_UNARY
    async with served(Holder()) as ours:
        proxy = make_proxy(Holder, ours.channel)
        for data in HOSTILE.values():
            with anyio.fail_after(5):
                stream = ours.channel.request(
                    f"/Holder/{method}", kind, bytes, bytes, codec=RawCodec("msgpack")
                )
                with pytest.raises(GRPCError) as caught:
                    await stream.unary(data)
                assert caught.value.status is Status.INVALID_ARGUMENT
                assert len(caught.value.message or "") < 2_000
                assert await proxy.number(1) == 1
        await ours.check_nothing_is_left()


async def test_hostile_results_are_refused() -> None:
    class Fake:
        def __mapping__(self) -> dict[str, Any]:
            from pyvider_rpcplugin.rpc._codecs import CodecHandler

            codecs = {"msgpack": RawCodec("msgpack")}
            return {"/Holder/point": CodecHandler.make(self.say, Cardinality.UNARY_UNARY, codecs)}

        async def say(self, stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(answers[-1])

    answers: list[bytes] = []

    async with linked(server=Server([Fake()])) as ours:
        proxy = make_proxy(Holder, ours.channel)
        for answer in HOSTILE.values():
            answers.append(answer)
            with anyio.fail_after(5), pytest.raises(GRPCError, match="not what was expected"):
                await proxy.point(Point(1))


async def test_what_is_too_large_is_refused_before_it_is_there() -> None:
    options = RPCOptions(max_receive_message_size=1_000_000)
    server = Server([TypedService(Holder())], options=options)
    async with linked(server=server) as ours:
        proxy = make_proxy(Holder, ours.channel)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with anyio.fail_after(5), pytest.raises(GRPCError) as caught:
            await proxy.data(bytes(1_000_001))
        assert caught.value.status is Status.RESOURCE_EXHAUSTED
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
        await ours.check_nothing_is_left()
