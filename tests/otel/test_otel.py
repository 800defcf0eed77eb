"""Spans and metrics, between a host and a plugin in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import anyio
import pytest
from grpclib.exceptions import GRPCError

from pyvider_rpcplugin import (
    ConfigError,
    PluginHost,
    RestartPolicy,
    RPCPluginError,
    otel,
    plugin_client,
    plugin_server,
)
from pyvider_rpcplugin.sync import plugin_client_sync
from pyvider_rpcplugin.testing import connected
from tests.plugins import FOLDER, broken, echo
from tests.plugins.counter_plugin import Counter
from tests.protos.echo_grpc import EchoStub
from tests.protos.echo_pb2 import EchoRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

TRACED = [sys.executable, str(FOLDER / "traced_plugin.py")]


@runtime_checkable
class Traced(Protocol):
    async def add(self, number: int, *, to: int = 0) -> int: ...
    async def fail(self) -> None: ...
    async def here(self) -> str: ...
    def count(self, start: int, *, hang: bool = False) -> AsyncIterator[int]: ...
    async def total(self, numbers: AsyncIterator[int], *, factor: int = 1) -> int: ...
    def doubled(self, numbers: AsyncIterator[int]) -> AsyncIterator[int]: ...


class Recorder:
    """Providers whose spans and metrics stay here."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])
        self.given: dict[str, Any] = {
            "tracer_provider": self.tracers,
            "meter_provider": self.meters,
        }

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def points(self) -> dict[str, list[Any]]:
        """The measurements by the names of their instruments."""
        data = self._reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found

    def sums(self) -> dict[str, float]:
        """The sums, and how many measurements a histogram has."""
        return {
            name: sum(one.value if hasattr(one, "value") else one.count for one in points)
            for name, points in self.points().items()
        }


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.context
    assert context is not None
    return format(context.trace_id, "032x"), format(context.span_id, "016x")


async def numbers() -> AsyncIterator[int]:
    for number in (1, 2, 3):
        yield number


@pytest.mark.process
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
async def test_the_plugins_spans_are_children_of_the_hosts(recorder: Recorder, loop: str) -> None:
    printed: list[bytes] = []
    client = plugin_client([*TRACED, loop], sync_stdout=printed.append)
    assert otel.instrument(client, **recorder.given) is client
    with anyio.fail_after(20):
        async with client:
            traced = client.proxy(Traced, service_name="Traced")
            with recorder.tracers.get_tracer("test").start_as_current_span("outer"):
                assert await traced.add(1) == 1
                here = await traced.here()
                assert [one async for one in traced.count(2)] == [2, 1]
                assert await traced.total(numbers()) == 6
                assert [one async for one in traced.doubled(numbers())] == [2, 4, 6]
                with pytest.raises(Exception, match="nothing there"):
                    await traced.fail()
    theirs = [json.loads(line) for line in b"".join(printed).splitlines()]
    outer = recorder.spans[-1]
    ours = {span.name: span for span in recorder.spans[:-1]}
    assert here == ids(outer)[0]
    methods = ["add", "here", "count", "total", "doubled", "fail"]
    # Whether a method is there that takes a stream is asked before its first call.
    assert {f"Traced/{name}" for name in methods} <= set(ours)
    by_name = {span["name"]: span for span in theirs}
    for name in methods:
        span = ours[f"Traced/{name}"]
        served = by_name[span.name]
        assert span.kind is SpanKind.CLIENT
        assert span.parent is not None
        assert outer.context is not None
        assert span.parent.span_id == outer.context.span_id
        assert served["kind"] == "SpanKind.SERVER"
        assert served["parent_id"] == f"0x{ids(span)[1]}"
        assert served["context"]["trace_id"] == f"0x{ids(outer)[0]}"
        assert served["attributes"]["rpc.method"] == span.name
        assert span.attributes is not None
        assert span.attributes["server.address"] == "traced_plugin"
        assert span.attributes["rpc.system.name"] == "grpc"
        status = "UNKNOWN" if name == "fail" else "OK"
        assert span.attributes["rpc.response.status_code"] == status
        assert served["attributes"]["rpc.response.status_code"] == status
        assert span.status.is_ok is (name != "fail")


async def test_calls_are_measured_on_both_sides(recorder: Recorder) -> None:
    made = [otel.client_interceptor("counter", **recorder.given)]
    served = {"interceptors": [otel.server_interceptor(**recorder.given)]}
    with anyio.fail_after(5):
        async with connected(Counter(), interceptors=made, server=served) as client:
            counter = client.proxy(Counter)
            await counter.add(1)
            await counter.add(2)
            with pytest.raises(Exception, match="nothing there"):
                await counter.fail()
            await anyio.wait_all_tasks_blocked()
    points = recorder.points()
    for side in ("client", "server"):
        by_status = {
            one.attributes["rpc.response.status_code"]: one
            for one in points[f"rpc.{side}.call.duration"]
            if one.attributes["rpc.method"].startswith("Counter/")
        }
        assert {status: one.count for status, one in by_status.items()} == {"OK": 2, "UNKNOWN": 1}
        assert by_status["UNKNOWN"].attributes["error.type"] == "UNKNOWN"
        assert by_status["OK"].explicit_bounds[0] == 0.0001
        assert 0 < by_status["OK"].sum < 5
    # A server is not a part of what it was started in.
    parents = {span.parent.span_id for span in recorder.spans if span.parent is not None}
    assert parents == {
        span.context.span_id
        for span in recorder.spans
        if span.kind is SpanKind.CLIENT and span.context is not None
    }


@pytest.mark.process
async def test_starts_ends_and_restarts_are_counted(recorder: Recorder) -> None:
    soon = RestartPolicy(initial_backoff=0.01, max_backoff=0.01)
    client = otel.instrument(plugin_client(echo(), restart=soon), **recorder.given)
    with anyio.fail_after(15):
        async with PluginHost() as host:
            await host.start(client)
            async with client.events() as events:
                os.kill(client.pid or 0, signal.SIGKILL)
                async for event in events:
                    if event.kind == "started":
                        break
                assert recorder.sums()["rpcplugin.plugin.running"] == 1
        failing = otel.instrument(plugin_client(broken("exits")), **recorder.given)
        with pytest.raises(RPCPluginError):
            await failing.start()
    assert recorder.sums() == {
        "rpcplugin.plugin.starts": 2,
        "rpcplugin.plugin.exits": 1,
        "rpcplugin.plugin.restarts": 1,
        "rpcplugin.plugin.start_failures": 1,
        "rpcplugin.plugin.start.duration": 2,
        "rpcplugin.plugin.running": 0,
    }
    [point] = recorder.points()["rpcplugin.plugin.exits"]
    assert point.attributes == {"rpcplugin.plugin.name": "echo_plugin"}


@pytest.mark.process
@pytest.mark.parametrize("supervised", [False, True])
def test_blocking_clients_have_spans_too(recorder: Recorder, supervised: bool) -> None:
    restart = RestartPolicy() if supervised else None
    with (
        otel.instrument(plugin_client_sync(echo(), restart=restart), **recorder.given) as client,
        recorder.tracers.get_tracer("test").start_as_current_span("outer"),
    ):
        stub = client.stub(EchoStub)
        assert stub.Unary(EchoRequest(text="hello")).text == "hello"
        assert len(list(stub.ServerStream(EchoRequest(text="hello", count=2)))) == 2
    first, second, outer = recorder.spans
    assert (first.name, second.name) == (
        "testing.echo.Echo/Unary",
        "testing.echo.Echo/ServerStream",
    )
    for span in (first, second):
        assert span.parent is not None
        assert outer.context is not None
        assert span.parent.span_id == outer.context.span_id


@pytest.mark.process
async def test_calls_of_grpcios_stubs_have_spans_too(recorder: Recorder) -> None:
    client = otel.instrument(plugin_client(echo()), **recorder.given)
    with anyio.fail_after(10):
        async with client:
            assert client.grpc_channel is not None
            with recorder.tracers.get_tracer("test").start_as_current_span("outer"):
                call = client.grpc_channel.unary_unary("/testing.echo.Echo/Nothing")
                with pytest.raises(Exception, match="UNIMPLEMENTED"):
                    await call(b"")
    span, outer = recorder.spans
    assert span.parent is not None
    assert outer.context is not None
    assert span.parent.span_id == outer.context.span_id
    assert not span.status.is_ok


async def test_a_call_that_is_refused_before_it_begins_ends_its_span(recorder: Recorder) -> None:
    with anyio.fail_after(5):
        async with connected(
            Counter(), interceptors=[otel.client_interceptor(**recorder.given)]
        ) as client:
            counter = client.proxy(Counter, timeout=0)
            with pytest.raises(GRPCError):
                await counter.add(1)
    [span] = recorder.spans
    assert span.attributes is not None
    assert span.attributes["error.type"] == "DEADLINE_EXCEEDED"


async def test_only_what_has_not_been_started_can_be_instrumented() -> None:
    with anyio.fail_after(5):
        server = plugin_server(handler=Counter(), standalone=True, transport="tcp")
        async with server.serve() as address, plugin_client(address=address) as client:
            for running in (server, client):
                with pytest.raises(RPCPluginError, match="started already"):
                    otel.instrument(running)
    with pytest.raises(ConfigError, match="neither a client nor a server"):
        otel.instrument(Counter())


def test_without_the_sdk_nothing_is_recorded_and_nothing_breaks() -> None:
    assert not trace.get_tracer("test").start_span("one").is_recording()


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from pyvider_rpcplugin import otel, plugin_client, plugin_server, ConfigError
for make in (
    lambda: otel.instrument(plugin_client(["x"])),
    lambda: otel.instrument(plugin_server(handler=object())),
    otel.client_interceptor,
    otel.server_interceptor,
):
    try:
        make()
    except ConfigError as error:
        print(error.message, "|", error.hint)
"""


def test_without_the_extra_asking_for_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    said = "OpenTelemetry is not installed | Install this package with its extra `otel`, or "
    assert done.stdout.splitlines() == [f"{said}opentelemetry-api beside it."] * 4


def test_it_is_loaded_by_nothing_but_its_use() -> None:
    code = (
        "import sys, pyvider_rpcplugin as p; p.plugin_client(['x']); p.plugin_server(handler=object);"
        "import pyvider_rpcplugin.otel;"
        "own = {'admin', 'client.statistics', 'client._snapshot', 'rpc.statistics'};"
        "own = {'pyvider_rpcplugin.' + name for name in own};"
        "print([one for one in sys.modules if one.startswith('opentelemetry') or one in own])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
