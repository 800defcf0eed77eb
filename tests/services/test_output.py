"""The buffer between who prints and who takes it to the host."""

from __future__ import annotations

import threading
from collections import defaultdict

import anyio
from hypothesis import given, strategies as st

from pyvider_rpcplugin.services import OutputBuffer, StdioChannel, StdioService
from pyvider_rpcplugin.services._output import MOST

OUT, ERR = StdioChannel.STDOUT, StdioChannel.STDERR


def test_the_channels_take_turns_and_each_keeps_its_order() -> None:
    buffer = OutputBuffer()
    for data in (b"a", b"b"):
        buffer.put(OUT, data, may_wait=False)
        buffer.put(ERR, data.upper(), may_wait=False)
    assert [buffer.take(1) for _ in range(5)] == [
        (OUT, b"a"),
        (ERR, b"A"),
        (OUT, b"b"),
        (ERR, b"B"),
        None,
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(StdioChannel), st.binary(max_size=20))
        | st.tuples(st.integers(1, 10), st.booleans())
    )
)
def test_nothing_is_lost_or_exchanged(steps) -> None:
    buffer = OutputBuffer()
    said: dict[int, bytes] = defaultdict(bytes)
    got: dict[int, bytes] = defaultdict(bytes)
    for what, how in steps:
        if isinstance(how, bytes):
            said[what] += how
            buffer.put(what, how, may_wait=False)
        elif piece := buffer.take(what):
            if how:
                buffer.put_back(*piece)
            else:
                got[piece[0]] += piece[1]
    while piece := buffer.take(1000):
        got[piece[0]] += piece[1]
    assert {key: value for key, value in said.items() if value} == got


def test_the_oldest_is_pushed_out() -> None:
    buffer = OutputBuffer()
    buffer.put(OUT, b"old" + bytes(MOST - 3), may_wait=True)
    assert buffer.dropped == 0
    buffer.put(OUT, b"new", may_wait=True)
    assert buffer.dropped == 3
    taken = buffer.take(MOST)
    assert taken is not None
    assert taken[1] == bytes(MOST - 3) + b"new"


def test_who_waits_for_a_listener_goes_on_when_it_takes_leaves_or_time_presses() -> None:
    for let_go in ("take", "leave", "hurry"):
        buffer = OutputBuffer()
        buffer.listen(True)
        buffer.put(OUT, bytes(MOST), may_wait=True)
        thread = threading.Thread(target=buffer.put, args=(OUT, b"x"), kwargs={"may_wait": True})
        thread.start()
        match let_go:
            case "take":
                buffer.take(1)
            case "leave":
                buffer.listen(False)
            case "hurry":
                buffer.hurry()
        thread.join(60)
        assert not thread.is_alive()
        assert buffer.dropped == (0 if let_go == "take" else 1)


async def test_putting_from_a_thread_wakes_who_waits() -> None:
    buffer = OutputBuffer()
    buffer.bind()
    with anyio.fail_after(5):
        for _ in range(3):
            async with anyio.create_task_group() as tg:
                tg.start_soon(buffer.wait)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(lambda: buffer.put(OUT, b"x", may_wait=True))
            assert buffer.take(10) == (OUT, b"x")
        buffer.end()
        await buffer.wait()


async def test_the_end_of_the_service_waits_for_nobody_where_nobody_listens() -> None:
    buffer = OutputBuffer()
    buffer.put(OUT, b"x", may_wait=False)
    with anyio.fail_after(5):
        await StdioService(buffer).finish()
    assert buffer.ended
