"""Records of the library's log name their events, whoever reads them."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import structlog

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin._events import event_logger, name_event
from tests.pages import DOCS, ROOT
from tests.plugins import echo

if TYPE_CHECKING:
    from collections.abc import Iterator


def record(text: Any, *args: Any) -> Any:
    made = logging.LogRecord("x", logging.INFO, "x.py", 1, text, args, None)
    assert name_event(made) is True
    return made


def test_a_name_with_dots_is_the_event_and_what_follows_are_fields() -> None:
    seen = record("server.listening address=%s port=%d", "::1", 80)
    assert (seen.event, seen.address, seen.port) == ("server.listening", "::1", 80)
    assert seen.getMessage() == "server.listening address=::1 port=80"


def test_fields_may_be_written_out_and_words_in_between_mean_nothing() -> None:
    seen = record("rpc.stop_soon: %s of id=%d reason=bored", "this", 3)
    assert (seen.event, seen.id, seen.reason) == ("rpc.stop_soon", 3, "bored")


@pytest.mark.parametrize(
    "text", ["plain words a=%s", "e.g. this", "Name.of x", 3, "file.py2 x", ""]
)
def test_other_texts_name_no_event(text: Any) -> None:
    assert not hasattr(record(text), "event")


def test_what_a_record_has_stays_as_it_is() -> None:
    made: Any = logging.LogRecord("x", logging.INFO, "x.py", 1, "a.b name=%s", ("y",), None)
    made.event = "mine"
    assert name_event(made)
    assert (made.event, made.name) == ("mine", "x")
    assert record("a.b name=%s", "y").name == "x"
    assert record("a.b n=%(n)s", {"n": 1}).event == "a.b"


@pytest.fixture
def structured() -> Iterator[io.StringIO]:
    """The log, as structlog renders what comes from `logging`."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logger = logging.getLogger("pyvider_rpcplugin")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.process
async def test_structlog_has_events_and_fields(structured: io.StringIO) -> None:
    with anyio.fail_after(10):
        async with plugin_client(echo(), log_level="DEBUG") as client:
            pid = client.pid
            os.kill(pid or 0, signal.SIGKILL)
            await client.exited.wait()
    event_logger("pyvider_rpcplugin.tests").warning("test.done number=%d", 7)
    said = [json.loads(line) for line in structured.getvalue().splitlines()]
    by_event = {line["event"]: line for line in said}
    started = by_event["plugin.started"]
    assert (started["plugin"], started["pid"], started["level"]) == ("echo_plugin", pid, "debug")
    exited = by_event["plugin.exited"]
    assert (exited["pid"], exited["status"], exited["level"]) == (pid, -signal.SIGKILL, "warning")
    assert by_event["test.done"]["number"] == 7


def names_in_the_code() -> set[str]:
    found: set[str] = set()
    package = ROOT / "pyvider_rpcplugin"
    for path in package.rglob("*.py"):
        code = path.read_text()
        found |= set(
            re.findall(
                r"logger\.(?:debug|info|warning|error|exception)\(\s*\"([a-z_]+(?:\.[a-z_]+)+)",
                code,
            )
        )
        if path.parent.name == "client":
            found |= set(re.findall(r'"(plugin\.[a-z_]+)"', code))
    return found


def test_the_page_lists_all_events_and_no_others() -> None:
    page = (DOCS / "observability.md").read_text()
    listed = set(re.findall(r"^\| `([a-z_]+(?:\.[a-z_]+)+)` \| [A-Z]+ \|", page, re.MULTILINE))
    assert listed == names_in_the_code()
