"""What a plugin logs is in its host's log."""

from __future__ import annotations

import io
import json
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest

from pyvider_rpcplugin import RPCPluginError, plugin_client
from pyvider_rpcplugin.client._log import LineLog, PluginLog
from pyvider_rpcplugin.logs import LogLine
from tests.plugins import talking
from tests.plugins.misc_plugin import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process

DEBUG = {"PLUGIN_LOG_LEVEL": "DEBUG"}
TRACE = {"PLUGIN_LOG_LEVEL": "TRACE"}


NAMES = {5: "TRACE", 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}


class Records(logging.Handler):
    """Keeps the records of plugins, and lets a test wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []
        self._changed = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)
        self._changed.set()

    async def wait(self, text: str) -> logging.LogRecord:
        """The first record with this in its message."""
        with anyio.fail_after(5):
            while True:
                for record in self.all:
                    if text in record.getMessage():
                        return record
                self._changed = anyio.Event()
                await self._changed.wait()


HandlerT = TypeVar("HandlerT", bound=logging.Handler)


@contextmanager
def handling(handler: HandlerT) -> Iterator[HandlerT]:
    """Let a handler have what plugins log."""
    logger = logging.getLogger("pyvider_rpcplugin.plugin")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


@pytest.fixture
def records() -> Iterator[Records]:
    with handling(Records()) as handler:
        yield handler


@pytest.fixture
def loop(anyio_backend: Any) -> str:
    """The same loop for the plugin."""
    name: str = anyio_backend[0]
    return name


async def test_each_level_arrives_with_time_and_fields(records: Records, loop: str) -> None:
    async with plugin_client(talking(loop), env=TRACE, log_level="TRACE") as client:
        for level in (5, 10, 20, 30, 40, 50):
            before = time.time()
            after = float(await ask(client.grpc_channel, f"log {level} level {level} 100% sure"))
            record = await records.wait(f"level {level}")
            assert record.levelno == min(level, 40)
            assert record.levelname == NAMES[record.levelno]
            assert record.getMessage() == f"level {level} 100% sure"
            assert record.name == "pyvider_rpcplugin.plugin.talking_plugin"
            assert before - 1e-3 <= record.created <= after + 1e-3
            assert record.msecs == pytest.approx(record.created * 1000 % 1000, abs=1)
            fields = vars(record)
            assert fields["@module"] == "talker.part"
            assert fields["n"] == 1
            assert fields["nested"] == {"a": [1, 2]}
            assert fields["odd"] == "<class 'object'>"
        # What the process has said is kept as it came.
        await client.stop()
        assert client.exit is not None
        assert any("level 50" in line for line in client.exit.stderr_tail)


async def test_the_level_that_is_set_counts_on_either_side(records: Records, loop: str) -> None:
    # The plugin's own is INFO, where nobody says otherwise.
    async with plugin_client(talking(loop), log_level="WARNING") as client:
        await ask(client.grpc_channel, "log 10 debug")
        await ask(client.grpc_channel, "log 20 info")
        await ask(client.grpc_channel, "log 30 warning")
        await records.wait("warning")
        await client.stop()
        assert client.exit is not None
        tail = "".join(client.exit.stderr_tail)
    assert "info" in tail
    assert "debug" not in tail
    assert [record.getMessage() for record in records.all] == ["warning"]


async def test_an_exception_comes_along_for_formatters(records: Records, loop: str) -> None:
    async with plugin_client(talking(loop)) as client:
        await ask(client.grpc_channel, "log-exception")
        record = await records.wait("it failed")
        assert "JSONDecodeError" in logging.Formatter().format(record)
        assert "JSONDecodeError" in vars(record)["stacktrace"]
        await ask(client.grpc_channel, "fail-in-thread")
        record = await records.wait("exception in thread worker")
        assert record.levelno == logging.ERROR
        assert "JSONDecodeError" in logging.Formatter().format(record)


async def test_a_program_with_logging_of_its_own_keeps_it(records: Records, loop: str) -> None:
    async with plugin_client(talking(loop, "--own-logging"), log_level="DEBUG") as client:
        await ask(client.grpc_channel, "log 40 hello")
        assert (await records.wait("mine: hello")).levelno == logging.DEBUG


async def test_a_traceback_is_one_record_also_where_nothing_follows_it(
    records: Records, loop: str
) -> None:
    async with plugin_client(talking(loop)) as client:
        text = 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 1'
        await ask(client.grpc_channel, f"crash-text {text}")
        record = await records.wait("Traceback")
        assert (record.levelno, record.getMessage()) == (logging.ERROR, text)


async def test_a_plugin_that_crashes_says_so_in_one_record(records: Records, loop: str) -> None:
    with pytest.raises(RPCPluginError) as caught:
        await plugin_client(talking(loop, "--broken")).start()
    assert caught.value.exit_status == 1
    hint = "stderr: [ERROR] the plugin crashed: LookupError: "
    assert hint in str(caught.value)
    [record] = [record for record in records.all if record.levelno == logging.ERROR]
    assert vars(record)["stacktrace"].startswith("Traceback")


async def test_what_is_printed_to_stderr_is_logged_where_nobody_else_takes_it(
    records: Records, loop: str
) -> None:
    async with plugin_client(talking(loop), log_level="DEBUG") as client:
        await ask(client.grpc_channel, "complain [WARN] careful")
        assert (await records.wait("careful")).levelno == logging.WARNING
        await ask(client.grpc_channel, "complain plain")
        assert (await records.wait("plain")).levelno == logging.DEBUG
        await ask(client.grpc_channel, "fork")
        assert (await records.wait("forked")).levelno == logging.WARNING


async def test_structlog_gets_the_fields(loop: str) -> None:
    import structlog

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logger = logging.getLogger("pyvider_rpcplugin.plugin")
    logger.addHandler(handler)
    try:
        async with plugin_client(talking(loop), log_level="WARNING") as client:
            await ask(client.grpc_channel, "log 30 hello")
    finally:
        logger.removeHandler(handler)
    assert json.loads(stream.getvalue()) == {
        "event": "hello",
        "level": "warning",
        "@module": "talker.part",
        "n": 1,
        "nested": {"a": [1, 2]},
        "odd": "<class 'object'>",
    }


def test_fields_never_hide_what_a_record_has(records: Records) -> None:
    log = PluginLog("fields", "INFO")
    hostile = {"msg": 1, "name": "other", "args": (1,), "exc_info": 1, "message": 2, "levelno": 5}
    log.relay(LogLine(logging.INFO, "%s %d", 1e10, dict(hostile)))
    [record] = records.all
    assert record.getMessage() == "%s %d"
    assert record.name == "pyvider_rpcplugin.plugin.fields"
    assert {key: vars(record)[f"{key}_"] for key in hostile} == hostile
    logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s").format(record)


def test_a_level_that_the_program_has_set_stays(records: Records) -> None:
    logger = logging.getLogger("pyvider_rpcplugin.plugin.quiet")
    logger.setLevel(logging.ERROR)
    log = PluginLog("quiet", "DEBUG")
    log.relay(LogLine(logging.WARNING, "no"))
    log.relay(LogLine(logging.ERROR, "yes"))
    assert [record.getMessage() for record in records.all] == ["yes"]


async def test_a_traceback_among_endless_chatter_is_not_held_for_ever(records: Records) -> None:
    lines = LineLog(PluginLog("chatter", "INFO"))

    async def chatter() -> None:
        while True:
            lines.feed("chatter")
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tg:
        tg.start_soon(lines.run)
        lines.feed("Traceback (most recent call last):")
        tg.start_soon(chatter)
        await records.wait("Traceback")
        tg.cancel_scope.cancel()


@pytest.mark.parametrize(("limit", "pieces"), [(1024, 4), (65536, 1)])
async def test_a_line_is_one_record_up_to_a_limit(
    records: Records, loop: str, limit: int, pieces: int
) -> None:
    """In whichever of the two ways it comes."""
    text = "long " * 800
    async with plugin_client(talking(loop), log_level="DEBUG", log_line_limit=limit) as client:
        for way in ("raw", "complain"):
            records.all.clear()
            await ask(client.grpc_channel, f"{way} {text}the end")
            await records.wait("the end")
            said = [r.getMessage() for r in records.all if r.name.startswith("pyvider_rpcplugin.")]
            assert "".join(said) == f"{text}the end"
            assert len(said) == pieces
