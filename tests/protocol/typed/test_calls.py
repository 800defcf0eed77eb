"""Calls of typed services: all four kinds, and how arguments are given."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Coroutine
from typing import Any, Protocol

import anyio
import pytest

from pyvider_rpcplugin.exception import ProtocolError
from pyvider_rpcplugin.protocol.typed import TypedService, make_proxy
from pyvider_rpcplugin.rpc import Server
from tests.protocol.typed.support import called, served


class Greeter:
    """Greets people."""

    async def hello(self, name: str, *, loud: bool = False) -> str:
        """Greet somebody."""
        return f"Hello, {name}{'!' if loud else '.'}"

    async def countdown(self, start: int) -> AsyncIterator[int]:
        for n in range(start, 0, -1):
            yield n

    async def total(self, numbers: AsyncIterator[int], scale: int = 1) -> int:
        return scale * sum([n async for n in numbers])

    async def doubled(self, by: int, /, numbers: AsyncIterable[int]) -> AsyncGenerator[int, None]:
        async for n in numbers:
            yield by * n

    async def nothing(self) -> None:
        pass

    def _private(self) -> None: ...

    def plain(self) -> int:
        return 1


async def numbers(count: int) -> AsyncIterator[int]:
    for n in range(count):
        yield n


async def test_all_four_kinds_of_methods_are_called_by_their_annotations() -> None:
    async with called(Greeter()) as greeter:
        assert await greeter.hello("Ada") == "Hello, Ada."
        assert await greeter.nothing() is None
        assert [n async for n in greeter.countdown(3)] == [3, 2, 1]
        assert await greeter.total(numbers(4)) == 6
        assert [n async for n in greeter.doubled(2, numbers(4))] == [0, 2, 4, 6]


async def test_arguments_are_given_as_in_any_call() -> None:
    async with called(Greeter()) as greeter:
        assert await greeter.hello("Ada", loud=True) == "Hello, Ada!"
        assert await greeter.hello(loud=False, name="Ada") == "Hello, Ada."
        assert await greeter.total(numbers(4), 2) == 12
        assert await greeter.total(scale=3, numbers=numbers(3)) == 9
        for wrong in [
            greeter.hello,
            lambda: greeter.hello("Ada", True),
            lambda: greeter.hello("Ada", name="Bea"),
            lambda: greeter.hello("Ada", quiet=True),
            lambda: greeter.total(scale=1),
        ]:
            with pytest.raises(TypeError, match=r"^Greeter\.(hello|total)\(\): .*argument"):
                await wrong()
        with pytest.raises(TypeError, match=r"^Greeter\.countdown\(\): missing .* 'start'"):
            greeter.countdown()


async def test_a_proxy_says_what_it_stands_for() -> None:
    async with called(Greeter()) as greeter:
        assert greeter.hello.__doc__ == "Greet somebody."
        assert greeter.hello.__name__ == "hello"
        assert str(inspect.signature(greeter.hello)) == (
            "(name: 'str', *, loud: 'bool' = False) -> 'str'"
        )
        assert inspect.iscoroutinefunction(greeter.hello)
        assert type(greeter).__doc__ == "Greets people."
        assert repr(greeter) == "<proxy of Greeter>"
        for name in ("plain", "_private", "other"):
            with pytest.raises(AttributeError):
                getattr(greeter, name)
        with pytest.raises(AttributeError):
            greeter.other = 1


class GreeterAPI(Protocol):
    async def hello(self, name: str, *, loud: bool = False) -> str: ...
    def countdown(self, start: int) -> AsyncIterator[int]: ...
    def nothing(self) -> Awaitable[None]: ...
    def total(self, numbers: AsyncIterator[int]) -> Coroutine[Any, Any, int]: ...


async def test_a_protocol_is_as_good_as_the_class() -> None:
    async with called(Greeter(), GreeterAPI) as greeter:
        assert await greeter.hello("Ada") == "Hello, Ada."
        assert [n async for n in greeter.countdown(2)] == [2, 1]
        assert await greeter.nothing() is None
        assert await greeter.total(numbers(3)) == 3


class Opener:
    """Returns its iterator from a coroutine."""

    async def numbers(self, count: int) -> AsyncIterator[int]:
        return numbers(count)

    def others(self, count: int) -> AsyncIterator[int]:
        return numbers(count)

    def later(self, count: int) -> Awaitable[int]:
        return self._later(count)

    async def _later(self, count: int) -> int:
        return count + 1


async def test_a_method_may_be_what_returns_an_iterator_or_an_awaitable() -> None:
    async with called(Opener()) as opener:
        assert [n async for n in await opener.numbers(3)] == [0, 1, 2]
        assert [n async for n in opener.others(3)] == [0, 1, 2]
        assert await opener.later(1) == 2


class Echoing(Protocol):
    async def echo(self, text: str) -> str: ...


class Echo(Echoing):
    async def echo(self, text: str) -> str:
        return text


async def test_a_service_bears_its_class_s_name_and_those_of_its_interfaces() -> None:
    assert TypedService(Echo()).names == ["Echo", "Echoing"]
    assert TypedService(Greeter()).names == ["Greeter"]
    assert TypedService(Echo(), "my.Name").names == ["my.Name"]
    async with served(Echo()) as ours:
        assert await make_proxy(Echoing, ours.channel).echo("a") == "a"
        assert await make_proxy(Echo, ours.channel).echo("b") == "b"
    server = Server([TypedService(Greeter(), "one"), TypedService(Greeter(), "two.Greeter")])
    assert server.services == ("one", "pyvider.rpcplugin.Services", "two.Greeter")


async def test_a_default_is_the_one_of_who_is_called() -> None:
    class Newer:
        async def add(self, item: int, to: list[int] = [1, 2]) -> list[int]:  # noqa: B006
            return [*to, item]

    class Older:
        async def add(self, item: int, to: list[int] = [9]) -> list[int]: ...  # type: ignore[empty-body]  # noqa: B006

    async with called(Newer(), Older, service_name="Newer") as proxy:
        assert await proxy.add(3) == [1, 2, 3]
        assert await proxy.add(3) == [1, 2, 3]
        assert await proxy.add(3, []) == [3]


async def test_a_call_can_have_a_deadline_and_metadata() -> None:
    class Slow:
        async def wait(self) -> None:
            from pyvider_rpcplugin import context

            assert context().metadata == {"who": "me"}
            seen.set()
            await anyio.Event().wait()

    seen = anyio.Event()
    async with called(Slow(), timeout=0.2, metadata={"who": "me"}) as slow:
        with anyio.fail_after(5):
            # A deadline may have passed before there is a handler.
            while not seen.is_set():
                with pytest.raises(TimeoutError):
                    await slow.wait()


async def test_many_calls_at_the_same_time_do_not_mix() -> None:
    class Meeting:
        def __init__(self) -> None:
            self.present = 0
            self.full = anyio.Event()

        async def join(self, number: int) -> int:
            self.present += 1
            if self.present == 100:
                self.full.set()
            await self.full.wait()
            return -number

    async def join(number: int) -> None:
        answers[number] = await meeting.join(number)

    answers: dict[int, int] = {}
    async with called(Meeting()) as meeting:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(join, number)
    assert answers == {number: -number for number in range(100)}


class Unannotated:
    async def hello(self, name) -> None: ...


class NoResult:
    async def hello(self, name: str): ...


class Variable:
    async def hello(self, *names: str) -> None: ...


class Unknown:
    async def hello(self, name: Nobody) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Yields:
    async def hello(self) -> int:  # type: ignore[misc]
        yield 1


class Ambiguous:
    async def hello(self, name: list[int] | set[int]) -> None: ...


class Broken:
    async def hello(self, name: "list[") -> None: ...  # type: ignore[valid-type]  # noqa: F722


class Empty:
    def hello(self) -> int: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (Unannotated, r"Unannotated\.hello\(\) has no annotation for its argument 'name'"),
        (NoResult, r"NoResult\.hello\(\) has no annotation for what it returns"),
        (Variable, r"Variable\.hello\(\) takes any number of arguments \(\*names: 'str'\)"),
        (Unknown, r"annotations of Unknown\.hello\(\) cannot be read: name 'Nobody'"),
        (Broken, r"annotations of Broken\.hello\(\) cannot be read"),
        (Yields, r"Yields\.hello\(\) yields, but is not annotated as AsyncIterator"),
        (Ambiguous, r"an argument of Ambiguous\.hello\(\) cannot be sent: Type unions may not"),
        (Empty, r"nothing to serve for 'Empty'"),
    ],
)
def test_what_cannot_be_served_says_so_by_name(handler: type, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        TypedService(handler())


def test_a_proxy_needs_a_class() -> None:
    interface: Any = Greeter()
    with pytest.raises(TypeError, match="class or a protocol"):
        make_proxy(interface, None)  # type: ignore[arg-type]


async def test_annotations_may_be_imported_for_type_checkers_alone() -> None:
    # As linters move them, where annotations are not evaluated.
    code = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
class Counter:
    async def count(self, start: int) -> AsyncIterator[int]:
        yield start
"""
    names: dict[str, Any] = {}
    exec(code, names)
    async with called(names["Counter"]()) as counter:
        assert [n async for n in counter.count(3)] == [3]


async def test_streams_of_anything_need_no_type() -> None:
    class Anything:
        async def echo(self, items: AsyncIterator) -> AsyncIterator:  # type: ignore[type-arg]
            async for item in items:
                yield item

    async with called(Anything()) as anything:
        assert [item async for item in anything.echo(numbers(2))] == [0, 1]


async def test_what_is_public_and_neither_async_nor_said_to_be_is_no_method() -> None:
    class Mixed:
        size = 3

        @property
        def name(self) -> str:
            return ""

        @staticmethod
        async def static(x: int) -> int:
            return x

        def listed(self) -> list[Awaitable[int]]:
            return []

        async def real(self) -> int:
            return 1

    assert list(TypedService(Mixed()).methods) == ["real"]
