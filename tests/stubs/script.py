"""What a program written for `grpc.aio` does, and what it sees: one function for each behaviour.

Each is given a stub and a function to say what it sees with. The test compares what is said with
grpcio's own channel and server to what is said with ours.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import grpc  # type: ignore[import-untyped]

from tests.protos.echo_pb2 import EchoRequest

from .servicers import show

Behaviour = Callable[[Any, Callable[..., None]], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}
BLOCKING: dict[str, Behaviour] = {}
INTERCEPTED: dict[str, Behaviour] = {}

_numbers = itertools.count()


def behaviour(function: Behaviour) -> Behaviour:
    """For a servicer whose methods are coroutine functions."""
    BEHAVIOURS[function.__name__] = function
    return function


def both(function: Behaviour) -> Behaviour:
    """For that one, and for one whose methods are plain functions."""
    BLOCKING[function.__name__] = function
    return behaviour(function)


def blocking(function: Behaviour) -> Behaviour:
    """For a servicer whose methods are plain functions."""
    BLOCKING[function.__name__] = function
    return function


def intercepted(function: Behaviour) -> Behaviour:
    """For a servicer that has interceptors before it."""
    INTERCEPTED[function.__name__] = function
    return function


def ask(text: str = "", **fields: Any) -> EchoRequest:
    return EchoRequest(text=text, **fields)


def fresh(name: str) -> str:
    """A name that no other behaviour uses on this server."""
    return f"{name}-{next(_numbers)}"


class Cancelled(Exception):
    """A call that was cancelled here."""


async def outcome(call: Any) -> str:
    """Await a call's response, and say what came."""
    try:
        reply = await call
    except grpc.aio.AioRpcError as error:
        if call.cancelled() and error.details() == "Locally cancelled by application!":
            return "cancelled here"  # On trio, which lets nobody raise its own exception.
        return describe(error)
    except asyncio.CancelledError:
        return "cancelled here"
    return f"{reply.text} {reply.data!r} {reply.index}"


def describe(error: grpc.aio.AioRpcError) -> str:
    assert isinstance(error, grpc.RpcError)
    details = error.details()
    if "Deadline Exceeded" in (details or ""):
        details = "Deadline Exceeded"  # More is said if the server's clock was the faster one.
    return (
        f"{type(error).__name__} {error.code()} {details!r} "
        f"{show(error.initial_metadata())} {show(error.trailing_metadata())}"
    )


async def collect(call: Any) -> list[str]:
    """Iterate over a call, and say what came."""
    seen = []
    try:
        async for reply in call:
            seen.append(f"{reply.text} {reply.index}")  # noqa: PERF401 - and then it may fail
    except grpc.aio.AioRpcError as error:
        if call.cancelled() and error.details() == "Locally cancelled by application!":
            return [*seen, "cancelled here"]
        return [*seen, describe(error)]
    except asyncio.CancelledError:
        return [*seen, "cancelled here"]
    return seen


async def interrupted(function: Callable[[], Awaitable[Any]]) -> bool:
    """Cancel what `function` waits for; say whether it was."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # on trio
        with anyio.move_on_after(0.1) as scope:
            await function()
        return scope.cancelled_caught
    task = asyncio.ensure_future(_waiting(function))
    done, _ = await asyncio.wait([task], timeout=0.1)
    assert not done
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def _waiting(function: Callable[[], Awaitable[Any]]) -> None:
    await function()


async def everything(call: Any) -> str:
    """What a call that is over says of itself."""
    return (
        f"{await call.code()} {await call.details()!r} {show(await call.initial_metadata())} "
        f"{show(await call.trailing_metadata())} {call.done()} {call.cancelled()} "
        f"{call.time_remaining()}"
    )


# --- a response -----------------------------------------------------------------------------------


@both
async def unary(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("hello", data=b"\0\1"))))


@both
async def unary_says_all_of_itself(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("hello"))
    say(call.done(), call.cancelled(), call.time_remaining())
    say(await outcome(call))
    say(await everything(call))


@both
async def unary_awaited_twice(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("hello"))
    say(await outcome(call), await outcome(call))


@behaviour
async def asked_by_several_tasks(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("hello"))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(outcome, call)
        tasks.start_soon(call.code)
        tasks.start_soon(call.initial_metadata)
    say(await everything(call))


@behaviour
async def many_at_once(stub: Any, say: Any) -> None:
    calls = [stub.Unary(ask(str(number))) for number in range(20)]
    say([await outcome(call) for call in calls])


@behaviour
async def begins_without_being_awaited(stub: Any, say: Any) -> None:
    name = fresh("begun")
    call = stub.Unary(ask(f"happen:{name}"))
    say(await outcome(stub.Unary(ask(f"wait:{name}"))) == f"{name} has happened b'' 0")
    say(await outcome(call))


@behaviour
async def unary_that_nobody_keeps(stub: Any, say: Any) -> None:
    name = fresh("forgotten")
    stub.Unary(ask(f"happen:{name}"))
    gc.collect()
    say(await outcome(stub.Unary(ask(f"wait:{name}"))) == f"{name} has happened b'' 0")


@both
async def large_messages(stub: Any, say: Any) -> None:
    reply = await stub.Unary(ask(data=bytes(3_000_000)))
    say(len(reply.data))


# --- statuses -------------------------------------------------------------------------------------


@both
async def every_status(stub: Any, say: Any) -> None:
    for code in range(1, 17):
        say(await outcome(stub.Unary(ask(f"abort:{code}:because of {code}"))))


@both
async def a_status_in_other_letters(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("abort:9:ünïcode ✓ 100% \n two lines"))))


@both
async def a_status_without_details(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("abort:5:"))))


@both
async def abort_with_trailing_metadata(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("abort_trailing:why"))))


@behaviour
async def abort_after_setting_the_rest(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("abort_later"))))


@behaviour
async def abort_with_a_status_object(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("abort_with_status"))
    say(await outcome(call))
    say(sorted(await call.trailing_metadata()))


@behaviour
async def abort_twice(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("abort_twice"))))


@behaviour
async def abort_suppressed(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("abort_suppressed"))))
    say(await collect(stub.ServerStream(ask("abort_suppressed", count=1))))


@both
async def set_code_discards_the_response(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("set_code:3:bad"))))


@behaviour
async def set_code_ok_keeps_the_details(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("set_ok"))
    say(await outcome(call), await call.details())


@behaviour
async def what_the_context_says_before_anything_was_set(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("nothing_set"))))


@both
async def an_exception_in_the_handler(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("fail:boom"))))
    say(await collect(stub.ServerStream(ask("fail:boom", count=2))))


@behaviour
async def an_exception_after_set_code(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("fail_with_code:gone"))))


@behaviour
async def a_handler_without_a_response(stub: Any, say: Any) -> None:
    try:
        await stub.Unary(ask("nothing"))
    except grpc.aio.AioRpcError as error:
        say(error.code())


@behaviour
async def a_method_that_is_not_there(stub: Any, say: Any) -> None:
    try:
        await stub.channel.unary_unary("/testing.echo.Echo/None")(b"")
    except grpc.aio.AioRpcError as error:
        say(error.code(), show(error.trailing_metadata()))
    try:
        await stub.channel.unary_unary("/no.Service/None", None, None)(b"")
    except grpc.RpcError as error:
        say(error.code())


@behaviour
async def octets_without_serializers(stub: Any, say: Any) -> None:
    method = stub.channel.unary_unary("/testing.echo.Echo/Unary")
    say(await method(ask("raw").SerializeToString()))


# --- metadata -------------------------------------------------------------------------------------


@both
async def request_metadata(stub: Any, say: Any) -> None:
    pairs = (("x-text", "a"), ("x-text", "b"), ("x-empty", ""), ("x-octets-bin", b"\0\xff\x80"))
    say(await outcome(stub.Unary(ask("metadata"), metadata=pairs)))
    say(await outcome(stub.Unary(ask("metadata"), metadata=list(pairs))))
    say(await outcome(stub.Unary(ask("metadata"), metadata=grpc.aio.Metadata(*pairs))))


@behaviour
async def request_metadata_has_keys_and_values(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("metadatum"), metadata=(("x-text", "a"),))))
    say(await outcome(stub.Unary(ask("agent"))))


@both
async def initial_metadata(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("initial"))
    metadata = await call.initial_metadata()
    say(type(metadata).__name__, show(metadata), metadata["x-text"], metadata.get("none"))
    say(metadata["x-octets-bin"], metadata.get_all("x-text"))
    say(await outcome(call))


@behaviour
async def initial_metadata_twice(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("initial_twice"))))


@behaviour
async def initial_metadata_of_a_call_that_failed(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("abort:5:x"))
    say(show(await call.initial_metadata()))
    say(await outcome(call))


@both
async def trailing_metadata(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("trailing"))
    say(await outcome(call))
    metadata = await call.trailing_metadata()
    say(type(metadata).__name__, show(metadata), metadata["x-text"], metadata.get_all("x-text"))


@behaviour
async def trailing_metadata_as_a_dict_is_refused(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("trailing_invalid"))))


@behaviour
async def trailing_metadata_of_a_stream(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask("trailing", count=1))
    say(await collect(call))
    say(await everything(call))


# --- deadlines ------------------------------------------------------------------------------------


@both
async def time_remaining(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("remaining"), timeout=50)
    say(40 < call.time_remaining() <= 50)
    say(await outcome(call))
    say(await outcome(stub.Unary(ask("remaining"))))


@behaviour
async def a_deadline_that_passes(stub: Any, say: Any) -> None:
    name = fresh("late")
    call = stub.Unary(ask(f"hang:{name}"), timeout=1)
    say(await outcome(call))
    say(call.cancelled(), call.done(), await call.code(), call.time_remaining() == 0)
    say((await outcome(stub.Unary(ask(f"wait:{name}")))).startswith(name))


@behaviour
async def a_deadline_that_passes_while_reading(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask(f"hang:{fresh('late')}", count=2), timeout=1)
    say(await collect(call))


@behaviour
async def a_deadline_that_has_passed(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask(), timeout=-1)))


@behaviour
async def a_deadline_of_a_call_with_written_requests(stub: Any, say: Any) -> None:
    call = stub.Bidi(timeout=0.1)
    await call.write(ask(f"hang:{fresh('late')}"))
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        say(describe(error))


# --- cancellation ---------------------------------------------------------------------------------


@behaviour
async def cancel(stub: Any, say: Any) -> None:
    name = fresh("cancelled")
    call = stub.Unary(ask(f"hang:{name}"))
    await stub.Unary(ask(f"wait:{name} begun"))
    say(call.cancelled(), call.cancel(), call.cancelled(), call.done(), call.cancel())
    say(await outcome(call))
    say(await everything(call))
    say((await outcome(stub.Unary(ask(f"wait:{name}")))).startswith(name))


@behaviour
async def cancel_at_once(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("hello"))
    say(call.cancel(), call.done())
    say(await outcome(call), await call.code(), await call.details())


@behaviour
async def cancel_what_is_over(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("hello"))
    await call
    say(call.cancel(), call.cancelled(), await outcome(call))


@behaviour
async def cancel_a_stream(stub: Any, say: Any) -> None:
    name = fresh("cancelled")
    call = stub.ServerStream(ask(f"hang:{name}", count=1))
    say((await call.read()).index)
    await stub.Unary(ask(f"wait:{name} begun"))
    say(call.cancel(), await everything(call))
    say((await outcome(stub.Unary(ask(f"wait:{name}")))).startswith(name))


@behaviour
async def cancel_while_iterating(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask(f"hang:{fresh('cancelled')}", count=5))
    seen = 0
    try:
        async for _ in call:
            seen += 1
            if seen == 2:
                call.cancel()
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        say("cancelled here")
    say(seen, call.cancelled())


@behaviour
async def the_task_that_awaits_is_cancelled(stub: Any, say: Any) -> None:
    name = fresh("cancelled")
    call = stub.Unary(ask(f"hang:{name}"))
    say(await interrupted(lambda: call))
    say(call.cancelled(), call.done(), await call.code())
    say((await outcome(stub.Unary(ask(f"wait:{name}")))).startswith(name))


@behaviour
async def the_task_that_reads_is_cancelled(stub: Any, say: Any) -> None:
    call = stub.Bidi()
    say(await interrupted(call.read))
    say(call.cancelled(), await call.code())


@behaviour
async def the_task_that_asks_for_the_code_is_cancelled(stub: Any, say: Any) -> None:
    name = fresh("unharmed")
    call = stub.Unary(ask(f"wait:{name}"))
    say(await interrupted(call.code))
    say(call.cancelled(), call.done())
    await stub.Unary(ask(f"happen:{name}"))
    say((await outcome(call)).startswith(name))


# --- callbacks ------------------------------------------------------------------------------------


@behaviour
async def done_callbacks(stub: Any, say: Any) -> None:
    seen: list[Any] = []
    call = stub.Unary(ask("hello"))
    call.add_done_callback(lambda call: seen.append(call.done()))
    say(await outcome(call), seen)
    call.add_done_callback(lambda call: seen.append("late"))
    say(seen)


@behaviour
async def done_callbacks_of_a_cancelled_call(stub: Any, say: Any) -> None:
    seen: list[Any] = []
    call = stub.Bidi()
    call.add_done_callback(lambda call: seen.append(call.cancelled()))
    call.cancel()
    say(seen)


@both
async def the_contexts_callbacks(stub: Any, say: Any) -> None:
    name = fresh("over")
    say((await outcome(stub.Unary(ask(f"done:{name}")))).replace(name, "name"))
    say((await outcome(stub.Unary(ask(f"wait:{name}")))).replace(name, "name"))


# --- streamed responses ---------------------------------------------------------------------------


@both
async def a_stream(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask("last", count=3))
    say(await collect(call))
    say(await everything(call))


@both
async def a_stream_read_one_by_one(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask(count=2))
    say((await call.read()).index, (await call.read()).index)
    say(await call.read() is grpc.aio.EOF, await call.read() is grpc.aio.EOF, call.done())


@both
async def an_empty_stream(stub: Any, say: Any) -> None:
    say(await collect(stub.ServerStream(ask())))
    call = stub.ServerStream(ask())
    say(await call.read() is grpc.aio.EOF, await call.code())


@behaviour  # grpcio itself hangs here, now and then, where the servicer is in a thread
async def a_stream_that_fails_after_some(stub: Any, say: Any) -> None:
    say(await collect(stub.ServerStream(ask("abort:10:enough", count=2))))
    call = stub.ServerStream(ask("abort:10:enough", count=1))
    await call.read()
    for _ in range(2):
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            say(describe(error))


@behaviour
async def a_stream_iterated_twice(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask(count=3))
    async for reply in call:
        say(reply.index)
        break
    async for reply in call:
        say(reply.index)


@behaviour
async def reading_in_two_styles_is_refused(stub: Any, say: Any) -> None:
    call = stub.ServerStream(ask(count=3))
    await call.read()
    try:
        await collect(call)
    except grpc.aio.UsageError as error:
        say(error)
    call.cancel()


@behaviour
async def headers_before_the_first_message(stub: Any, say: Any) -> None:
    call = stub.Bidi()
    await call.wait_for_connection()
    await call.write(ask("initial"))
    say(show(await call.initial_metadata()))
    say((await call.read()).text)
    await call.done_writing()
    say(await call.read() is grpc.aio.EOF)


# --- streamed requests ----------------------------------------------------------------------------


@both
async def requests_from_a_list(stub: Any, say: Any) -> None:
    say(await outcome(stub.ClientStream([ask("a"), ask("b")])))
    say(await outcome(stub.ClientStream(iter([]))))


@both
async def requests_from_a_generator(stub: Any, say: Any) -> None:
    async def requests() -> Any:
        for text in "abc":
            yield ask(text)

    say(await outcome(stub.ClientStream(requests())))
    say(await collect(stub.Bidi(requests())))


@both
async def requests_written(stub: Any, say: Any) -> None:
    call = stub.ClientStream()
    await call.write(ask("a"))
    await call.write(ask("b"))
    await call.done_writing()
    await call.done_writing()
    say(await outcome(call), await call.code())


@behaviour
async def writing_after_the_end_is_refused(stub: Any, say: Any) -> None:
    call = stub.ClientStream()
    await call.done_writing()
    try:
        await call.write(ask("late"))
    except asyncio.InvalidStateError as error:
        say(error)
    say(await outcome(call))
    try:
        await call.write(ask("too late"))
    except asyncio.InvalidStateError as error:
        say(error)


@behaviour
async def writing_in_two_styles_is_refused(stub: Any, say: Any) -> None:
    call = stub.ClientStream([ask("a")])
    try:
        await call.write(ask("b"))
    except grpc.aio.UsageError as error:
        say(error)
    say(await outcome(call))


@behaviour
async def requests_that_fail_cancel_the_call(stub: Any, say: Any) -> None:
    async def requests() -> Any:
        yield ask("a")
        raise ValueError

    call = stub.ClientStream(requests())
    say(await outcome(call), call.cancelled())


@behaviour
async def a_server_that_answers_before_all_requests_came(stub: Any, say: Any) -> None:
    async def requests() -> Any:
        yield ask("enough", count=1)
        while True:
            yield ask("more")
            await anyio.sleep(0.01)

    say(await outcome(stub.ClientStream(requests())))


@behaviour
async def a_refusal_before_all_requests_came(stub: Any, say: Any) -> None:
    call = stub.ClientStream()
    await call.write(ask("abort:8:full"))
    say(await outcome(call))


@both
async def ping_pong(stub: Any, say: Any) -> None:
    call = stub.Bidi()
    for text in ("a", "b", "c"):
        await call.write(ask(text))
        reply = await call.read()
        say(reply.text, reply.index)
    await call.done_writing()
    say(await call.read() is grpc.aio.EOF, await call.code())


@both
async def ping_pong_that_is_refused(stub: Any, say: Any) -> None:
    call = stub.Bidi()
    await call.write(ask("a"))
    say((await call.read()).text)
    await call.write(ask("abort:7:no"))
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        say(describe(error))
    say(call.done(), await call.code())


@behaviour
async def writing_and_iterating(stub: Any, say: Any) -> None:
    call = stub.Bidi()
    await call.write(ask("a"))
    await call.write(ask("b"))
    await call.done_writing()
    say(await collect(call))


# --- other options --------------------------------------------------------------------------------


@both
async def compressed_requests(stub: Any, say: Any) -> None:
    for compression in grpc.Compression:
        reply = await stub.Unary(ask(data=bytes(10_000)), compression=compression)
        say(len(reply.data))
        replies = await collect(stub.Bidi([ask("a" * 1000)], compression=compression))
        say([len(text) for text in replies])


@behaviour
async def compressed_responses(stub: Any, say: Any) -> None:
    for how in ("compressed", "uncompressed", "late_compression"):
        say(await outcome(stub.Unary(ask(how))))


@behaviour
async def wait_for_ready(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("hello"), wait_for_ready=True, timeout=5)))
    call = stub.ServerStream(ask(count=1), wait_for_ready=False)
    await call.wait_for_connection()
    say(await collect(call))


@behaviour
async def who_calls(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("peer"))))


# --- threads --------------------------------------------------------------------------------------


@blocking
async def plain_functions_run_in_threads(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("thread"))))
    say(await collect(stub.Bidi([ask("thread")])))


# --- interceptors of the server -------------------------------------------------------------------


def tell(word: str) -> dict[str, Any]:
    return {"metadata": (("x-text", word),)}


@intercepted
async def calls_are_passed_on(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("hello"))))
    say(await collect(stub.ServerStream(ask("last", count=2))))
    say(await outcome(stub.ClientStream([ask("a"), ask("b")])))
    say(await collect(stub.Bidi([ask("a"), ask("b")])))


@intercepted
async def calls_are_refused(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("hello"), **tell("refuse"))))
    say(await collect(stub.ServerStream(ask("hello", count=2), **tell("refuse"))))


@intercepted
async def calls_have_no_handler(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("hello"), **tell("nobody"))))
    say(await collect(stub.ServerStream(ask(count=2), **tell("nobody"))))


@intercepted
async def an_interceptor_fails(stub: Any, say: Any) -> None:
    say(await outcome(stub.Unary(ask("hello"), **tell("fail"))))


@intercepted
async def handlers_are_wrapped(stub: Any, say: Any) -> None:
    call = stub.Unary(ask("hello"), **tell("wrap"))
    say(await outcome(call), show(await call.trailing_metadata()))
    say(await outcome(stub.Unary(ask("abort:5:inside"), **tell("wrap"))))
    say(await outcome(stub.Unary(ask("fail:inside"), **tell("wrap"))))
    say(await collect(stub.ServerStream(ask("last", count=2), **tell("wrap"))))
