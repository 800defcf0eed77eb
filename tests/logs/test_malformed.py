"""Whatever a plugin writes to its standard error, its host logs it and goes on."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin import plugin_client
from pyvider_rpcplugin.client._log import PluginLog
from pyvider_rpcplugin.logs import StderrParser
from tests.plugins import talking
from tests.plugins.misc_plugin import ask

from .test_relay import Records, handling

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = logging.LogRecord("", 0, "", 0, "", (), None)
NAMES = st.sampled_from(sorted({*dir(RECORD), "message", "asctime", "stacktrace"})) | st.text(
    st.characters(exclude_categories=["Cs"])
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


class Reader(Records):
    """Formats each record, as a user's handler does, and lets an error through."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []
        self.formatter = logging.Formatter("%(levelname)s %(name)s %(message)s %(asctime)s")

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        assert record.getMessage() in text
        self.lines.append((record.levelname, record.getMessage()))
        super().emit(record)


@pytest.fixture
def reader() -> Iterator[Reader]:
    with handling(Reader()) as handler:
        yield handler


@given(st.dictionaries(NAMES, JSON))
def test_fields_of_any_name_and_value_make_one_record(
    reader: Reader, fields: dict[str, Any]
) -> None:
    log = PluginLog("any", "TRACE")
    reader.lines.clear()
    line = {
        **fields,
        "@message": "m",
        "@level": "warn",
        "@timestamp": "2026-01-02T03:04:05.123456Z",
    }
    for record in StderrParser().feed(json.dumps(line)):
        log.relay(record)
    assert reader.lines == [("WARNING", "m")]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_line_makes_a_record_at_last(reader: Reader, line: str) -> None:
    log = PluginLog("any", "TRACE")
    reader.lines.clear()
    parser = StderrParser()
    for record in [*parser.feed(line), *parser.flush()]:
        log.relay(record)
    assert len(reader.lines) == 1


# What the log of a plugin in Go would not have survived, or would have been lost in.
HOSTILE = [
    b'{"@message":["m"],"@level":"info"}',
    b'{"@message":"m","@level":{"a":1}}',
    b'{"@message":"m","@level":"info","@timestamp":17}',
    b'{"@message":"m","@level":"info","@timestamp":"yesterday"}',
    b'{"@message":"m","@level":"deafening"}',
    b'{"@message":"m","@level":"info"',
    b'{"a":' * 10_000,
    b"[[[[[[",
    b'"text"',
    b"12345",
    b"\xff\xfe\x00\x80 no text",
    b"\x00" * 100,
    b"z" * 200_000,
    b'{"@level":"info","@message":"' + b"l" * 200_000 + b'"}',
    b'{"@level":"info","@message":"m","__class__":1,"__dict__":{},"getMessage":2,"args":[3]}',
    b'{"@level":"info","@message":"\\ud800"}',
    b'{"@level":"info","@message":"%s %d %(x)s"}',
    b"",
]


@pytest.mark.process
async def test_a_host_outlives_what_its_plugin_writes(
    reader: Reader, anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pyvider_rpcplugin")
    with anyio.fail_after(10):
        async with plugin_client(talking(anyio_backend[0]), log_level="TRACE") as client:
            channel = client.grpc_channel
            for line in HOSTILE:
                # As Latin-1, so that any byte is a character on the way there.
                await ask(channel, f"raw {line.decode('latin-1')}")
            await ask(channel, "raw [ERROR] the last one")
            assert (await reader.wait("the last one")).levelno == logging.ERROR
        assert client.exit is not None
        assert client.exit.status == 0
    # Each of them, and those that were too long in pieces, in its order.
    assert len(reader.lines) >= len(HOSTILE)
    assert ("INFO", "%s %d %(x)s") in reader.lines
    assert ("DEBUG", "12345") in reader.lines
    # The host itself had nothing to complain of.
    ours = {r.name for r in caplog.records if r.name.startswith("pyvider_rpcplugin")}
    assert ours == {"pyvider_rpcplugin.plugin.talking_plugin"}
