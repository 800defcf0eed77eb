"""What a server says of its services, and what is said of an interface that does not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

import anyio
import msgspec
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.protocol.typed import check, describe_services, make_proxy, raises
from pyvider_rpcplugin.protocol.typed._formats import DESCRIBE
from pyvider_rpcplugin.rpc import RawCodec, Server
from pyvider_rpcplugin.rpc._codecs import CodecHandler
from tests.protocol.typed.support import served
from tests.rpc.support import linked


class Item(msgspec.Struct):
    name: str
    price: float = 0.0


class Full(Exception):
    pass


class Store:
    """Keeps things."""

    @raises(Full)
    async def put(self, item: Item, count: int = 1, *, tags: list[str] | None = None) -> int:
        """Keep something."""
        return count

    async def find(self, name: str) -> AsyncIterator[Item]:
        yield Item(name)

    async def count(self, names: AsyncIterator[str], at_least: int) -> int:
        return max(at_least, len([name async for name in names]))

    async def echo(self, names: AsyncIterator[str]) -> AsyncIterator[str]:
        async for name in names:
            yield name


class Clock:
    async def now(self, zone: complex) -> float:
        return 0.0


async def names(*given: str) -> AsyncIterator[str]:
    for name in given:
        yield name


async def test_a_server_describes_its_services_by_json_schemas() -> None:
    async with served(Store(), Clock()) as ours:
        services = await describe_services(ours.channel)
    assert list(services) == ["Store", "Clock"]
    assert services["Store"].doc == "Keeps things."
    put = services["Store"].methods["put"]
    assert (put["doc"], put["type"], put["errors"]) == ("Keep something.", "unary_unary", ["Full"])
    assert put["result"] == {"type": "integer"}
    arguments = put["arguments"]
    assert arguments["required"] == ["item"]
    assert arguments["properties"]["count"] == {"type": "integer", "default": 1}
    item = arguments["properties"]["item"]
    assert item["$defs"]["Item"]["required"] == ["name"]
    count = services["Store"].methods["count"]
    assert (count["type"], count["items"]) == ("stream_unary", {"name": "names", "type": "string"})
    assert count["arguments"]["required"] == ["at_least"]
    # JSON has no form for it.
    zone = services["Clock"].methods["now"]["arguments"]["properties"]["zone"]
    assert zone == {"description": "<class 'complex'>"}


async def test_an_interface_that_fits_passes() -> None:
    class Less(Protocol):
        async def put(self, item: Item, count: float = 1) -> int: ...

    async with served(Store(), Clock()) as ours:
        await check(ours.channel, Store, None)
        await check(ours.channel, Less, None)
        await check(ours.channel, Less, "Store")


class Wrong(Protocol):
    async def putt(self) -> None: ...
    async def find(self, name: str) -> None: ...
    async def put(self, itm: Item, count: str = "") -> str: ...
    def count(self, names: AsyncIterator[int]) -> Awaitable[Any]: ...


async def test_all_that_does_not_fit_is_named_with_the_nearest_that_is_served() -> None:
    async with served(Store(), Clock()) as ours:
        with pytest.raises(ProtocolError) as caught:
            await check(ours.channel, Wrong, "Store")
        what, _, differences = caught.value.message.partition(": ")
        assert what == "Wrong is not what is served"
        assert differences.split("; ") == [
            "there is no method 'putt'",
            "is it 'put'?",
            "find() is unary_stream, not unary_unary",
            "put(): there is no argument 'itm'",
            "is it 'item'?",
            "put(): the argument 'count' is integer there and string here",
            "put(): the argument 'item' is missing",
            "put(): the result is integer there and string here",
            "count(): the argument 'at_least' is missing",
            "count(): an item of the stream is string there and integer here",
        ]
        with pytest.raises(ProtocolError, match=r"no service 'Stores'; is it 'Store'\?"):
            await check(ours.channel, Store, "Stores")
        with pytest.raises(ProtocolError, match="no service 'Wrong'; there is Clock, Store"):
            await check(ours.channel, Wrong, None)
        with pytest.raises(TypeError, match="class or a protocol"):
            await check(ours.channel, Store(), None)  # type: ignore[arg-type]
    async with linked() as ours:
        with pytest.raises(ProtocolError, match="there is no typed one at all"):
            await check(ours.channel, Store, None)


class StoreAPI(Protocol):
    async def put(self, item: Item) -> int: ...
    def find(self, name: str) -> AsyncIterator[Item]: ...
    async def count(self, names: AsyncIterator[str], at_least: int) -> int: ...
    def echo(self, names: AsyncIterator[str]) -> AsyncIterator[str]: ...


CALLS: dict[str, Any] = {
    "unary": lambda store: store.put(Item("a")),
    "results": lambda store: first(store.find("a")),
    "items": lambda store: store.count(names("a", "b"), 0),
    "both": lambda store: first(store.echo(names("a", "b"))),
}


async def first(stream: Any) -> Any:
    async with stream:
        return await anext(stream)


@pytest.mark.parametrize("call", CALLS)
async def test_a_protocol_of_another_name_finds_the_service_that_has_its_methods(call: str) -> None:
    async with served(Store(), Clock()) as ours:
        store = make_proxy(StoreAPI, ours.channel)
        with anyio.fail_after(5):
            for _ in range(2):
                expected = {"unary": 1, "results": Item("a"), "items": 2, "both": "a"}
                assert await CALLS[call](store) == expected[call]
        assert repr(store) == "<proxy of Store>"


@pytest.mark.parametrize("call", CALLS)
async def test_which_of_several_services_is_meant_has_to_be_said(call: str) -> None:
    class Stores(Store):
        async def more(self) -> None: ...

    async with served(Store(), Stores()) as ours:
        store = make_proxy(StoreAPI, ours.channel)
        for _ in range(2):
            with (
                anyio.fail_after(5),
                pytest.raises(GRPCError, match=r"'StoreAPI'; is it 'Store'\?") as caught,
            ):
                await CALLS[call](store)
            assert caught.value.status is Status.UNIMPLEMENTED
        assert await CALLS[call](make_proxy(StoreAPI, ours.channel, service_name="Stores"))


@pytest.mark.parametrize("call", CALLS)
async def test_a_server_without_any_typed_service_says_what_it_always_says(call: str) -> None:
    async with linked() as ours:
        store = make_proxy(StoreAPI, ours.channel)
        with anyio.fail_after(5), pytest.raises(GRPCError, match="/StoreAPI/") as caught:
            await CALLS[call](store)
        assert caught.value.status is Status.UNIMPLEMENTED


async def test_a_method_that_is_not_there_is_named_with_the_nearest_one() -> None:
    class Other(Protocol):
        async def putt(self) -> None: ...

    async with served(Store()) as ours:
        other = make_proxy(Other, ours.channel, service_name="Store")
        with pytest.raises(GRPCError, match=r"^.*Other\.putt\(\): .*'putt'; is it 'put'\?") as e:
            await other.putt()
        assert e.value.status is Status.UNIMPLEMENTED


async def test_a_method_that_says_itself_that_it_is_not_there_is_believed() -> None:
    class Partial:
        async def put(self) -> None:
            raise GRPCError(Status.UNIMPLEMENTED, "not here")

    async with served(Partial()) as ours:
        with pytest.raises(GRPCError, match="not here"):
            await make_proxy(Partial, ours.channel).put()


async def test_a_description_that_makes_no_sense_is_an_error() -> None:
    class Fake:
        def __mapping__(self) -> dict[str, Any]:
            codecs = {"msgpack": RawCodec("msgpack")}
            return {DESCRIBE: CodecHandler.make(self.say, Cardinality.UNARY_UNARY, codecs)}

        async def say(self, stream: Any) -> None:
            await stream.recv_message()
            await stream.send_message(b"\xc1")

    async with linked(server=Server([Fake()])) as ours:
        with pytest.raises(GRPCError, match="malformed") as caught:
            await describe_services(ours.channel)
        assert caught.value.status is Status.INTERNAL
        with pytest.raises(GRPCError, match="/Store/put"):
            await make_proxy(Store, ours.channel).put(Item("a"))
