"""Exceptions of typed services: as themselves where they are registered, else with a traceback."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import pickle
import traceback
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Protocol

import anyio
import msgspec
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import plugin_client, plugin_server
from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.protocol.typed import RemoteError, TypedService, make_proxy, raises
from pyvider_rpcplugin.protocol.typed._errors import ERROR_KEY
from pyvider_rpcplugin.rpc import RawCodec, Server
from pyvider_rpcplugin.rpc._codecs import CodecHandler
from tests.protocol.typed.support import called
from tests.rpc.support import linked


class NotFound(Exception):
    pass


@dataclasses.dataclass
class OutOfStock(Exception):
    item: str
    left: int = 0
    since: dt.date | None = None


class Refused(Exception):
    """With a constructor of its own, and attributes that are annotated."""

    reason: str
    kind: ClassVar[str] = "refusal"

    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(f"refused ({code}): {reason}")
        self.reason = reason
        self.secret = object()


class Unregistered(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class SpecialNotFound(NotFound):
    pass


class Line(msgspec.Struct):
    number: int


@raises(NotFound)
class Shop:
    @raises(OutOfStock, Refused)
    async def buy(self, item: str) -> None:
        if item == "apple":
            raise OutOfStock(item, since=dt.date(2024, 2, 29))
        if item == "wine":
            raise Refused("too young", code=16)
        raise NotFound("nothing called", item, 7, Line(3))

    async def find(self, item: str) -> str:
        raise SpecialNotFound(item)

    async def browse(self) -> AsyncIterator[int]:
        yield 1
        raise NotFound("the rest")

    async def fail(self, how: str) -> None:
        if how == "group":
            raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
        if how == "lone group":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.find, "inner")
                await anyio.Event().wait()
        if how == "status":
            raise GRPCError(Status.ABORTED, "on purpose", None)
        if how == "no text":
            raise Unregistered
        if how == "long":
            raise ValueError("x" * 100_000)
        raise ValueError("of no\x1b[31m interest")


class ShopAPI(Protocol):
    async def find(self, item: str) -> str: ...
    async def buy(self, item: str) -> None: ...


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="pyvider_rpcplugin.protocol.typed._errors")


async def test_a_registered_exception_is_raised_as_itself_with_its_data() -> None:
    async with called(Shop()) as shop:
        with pytest.raises(OutOfStock) as stock:
            await shop.buy("apple")
        assert stock.value == OutOfStock("apple", 0, dt.date(2024, 2, 29))
        assert stock.value.args == ("apple",)
        with pytest.raises(Refused, match=r"^refused \(16\): too young") as refused:
            await shop.buy("wine")
        assert refused.value.reason == "too young"
        assert not hasattr(refused.value, "secret")
        with pytest.raises(NotFound) as missing:
            await shop.buy("pear")
        assert missing.value.args == ("nothing called", "pear", 7, {"number": 3})
        assert missing.value.__cause__ is None
        assert missing.value.__suppress_context__


async def test_an_exception_derived_from_a_registered_one_arrives_as_that() -> None:
    async with called(Shop()) as shop:
        with pytest.raises(NotFound, match="pear") as caught:
            await shop.find("pear")
        assert type(caught.value) is NotFound
        with pytest.raises(NotFound, match="inner"):
            await shop.fail("lone group")


async def test_a_stream_raises_it_after_its_results() -> None:
    async with called(Shop()) as shop:
        results = shop.browse()
        assert await anext(results) == 1
        with pytest.raises(NotFound, match="the rest"):
            await anext(results)


async def test_the_other_side_s_traceback_is_shown_where_it_is_raised() -> None:
    async with called(Shop()) as shop:
        for call in (shop.fail("any"), shop.buy("pear")):
            with pytest.raises((RemoteError, NotFound)) as caught:
                await call
            shown = "".join(traceback.format_exception(caught.value))
            assert "raised by Shop." in shown
            assert "test_errors.py" in caught.value.__notes__[0]
            assert "_service.py" not in caught.value.__notes__[0]


async def test_any_other_exception_is_a_status_with_the_traceback() -> None:
    async with called(Shop()) as shop:
        with pytest.raises(RemoteError, match=r"^UNKNOWN: ValueError: of no") as caught:
            await shop.fail("any")
        error = caught.value
        assert isinstance(error, GRPCError)
        assert error.status is Status.UNKNOWN
        assert error.exception == "ValueError"
        assert error.traceback.startswith("Traceback (most recent call last):\n")
        assert error.details is None
        assert "\x1b" not in error.traceback
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.traceback) == (str(error), error.traceback)
        with pytest.raises(RemoteError, match="several") as caught:
            await shop.fail("group")
        assert "KeyError: 'two'" in caught.value.traceback
        with pytest.raises(RemoteError, match="in its __str__"):
            await shop.fail("no text")
        with pytest.raises(RemoteError) as caught:
            await shop.fail("long")
        assert len(caught.value.traceback) < 10_000
        with pytest.raises(GRPCError, match="on purpose") as plain:
            await shop.fail("status")
        assert type(plain.value) is GRPCError
        assert plain.value.status is Status.ABORTED


async def test_the_interface_of_the_caller_decides_what_is_registered() -> None:
    async with called(Shop(), ShopAPI, service_name="Shop") as shop:
        with pytest.raises(RemoteError, match="NotFound") as caught:
            await shop.buy("pear")
        assert caught.value.exception == "NotFound"


async def test_an_expected_exception_is_no_line_in_the_log(caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="pyvider_rpcplugin.protocol.typed._errors")
    async with called(Shop()) as shop:
        with pytest.raises(NotFound):
            await shop.find("pear")
        assert not caplog.records
        with pytest.raises(RemoteError):
            await shop.fail("any")
        assert [record.exc_info[0] for record in caplog.records] == [ValueError]


async def test_data_that_cannot_be_sent_is_left_out() -> None:
    @dataclasses.dataclass
    class Odd(Exception):
        thing: Any
        size: int = 1

    @raises(Odd)
    class Oddities:
        async def get(self, size: int) -> None:
            raise Odd(object() if size == 1 else bytes(size), size)

    async with called(Oddities()) as oddities:
        with pytest.raises(Odd) as caught:
            await oddities.get(1)
        assert caught.value.size == 1
        assert not hasattr(caught.value, "thing")
        # More than fits where errors are told: it is only one of that name.
        with pytest.raises(RemoteError, match="Odd"):
            await oddities.get(1_000_000)


TOLD = {
    "nothing": b"",
    "no map": b"\xc0",
    "deep": b"\x81\xa4args\x91" + b"\x91" * 9_000 + b"\xc0",
    "another type of field": {"names": ["OutOfStock"], "fields": {"left": "x"}},
    "an unknown field": {"names": ["OutOfStock"], "fields": {"__class__": 1, "other": 2}},
    "without its data": {"names": ["OutOfStock"], "is_complete": False},
    "another class": {"names": ["SystemExit"], "args": [1]},
}


@pytest.mark.parametrize("name", TOLD)
async def test_what_is_told_wrongly_of_an_exception_is_a_status(name: str) -> None:
    class Fake:
        def __mapping__(self) -> dict[str, Any]:
            codecs = {"msgpack": RawCodec("msgpack")}
            kind = Cardinality.UNARY_UNARY
            return {"/Asked/get": CodecHandler.make(self.fail, kind, codecs)}

        async def fail(self, stream: Any) -> None:
            said = TOLD[name]
            data = said if isinstance(said, bytes) else msgspec.msgpack.encode(said)
            await stream.send_trailing_metadata(
                status=Status.UNKNOWN, status_message="why", metadata={ERROR_KEY: data}
            )

    @raises(OutOfStock)
    class Asked:
        async def get(self) -> None: ...

    async with linked(server=Server([Fake()])) as ours:
        with anyio.fail_after(5), pytest.raises((GRPCError, OutOfStock)) as caught:
            await make_proxy(Asked, ours.channel).get()
        if name == "an unknown field":
            assert type(caught.value) is OutOfStock
            assert not hasattr(caught.value, "other")
        else:
            assert isinstance(caught.value, GRPCError)
            assert caught.value.message == "why"


def test_only_exceptions_can_be_registered_and_each_name_once() -> None:
    with pytest.raises(TypeError, match="classes of exceptions"):
        raises(int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="classes of exceptions"):
        raises(KeyboardInterrupt)  # type: ignore[arg-type]

    def another() -> type[Exception]:
        class NotFound(Exception):
            pass

        return NotFound

    @raises(NotFound, another())
    class Twice:
        async def get(self) -> None: ...

    with pytest.raises(ProtocolError, match="two exceptions of the name NotFound"):
        TypedService(Twice())


async def test_a_server_that_stands_alone_keeps_its_tracebacks() -> None:
    server = plugin_server(handler=Shop(), standalone=True, auto_mtls=False)
    with anyio.fail_after(10):
        async with server.serve() as address:
            async with plugin_client(address=address, auto_mtls=False) as client:
                shop = client.proxy(Shop)
                with pytest.raises(RemoteError, match="ValueError: of no") as caught:
                    await shop.fail("any")
                assert caught.value.traceback == ""
                with pytest.raises(NotFound, match="pear") as registered:
                    await shop.find("pear")
                for error in (caught.value, registered.value):
                    assert not hasattr(error, "__notes__")
