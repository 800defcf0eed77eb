"""Spans and metrics of OpenTelemetry, for hosts and plugins.

It needs `opentelemetry-api`, which the extra `otel` brings, and which is loaded when one of these
functions is called. Where traces and metrics go is the application's to set up, with the SDK; until
it does, nothing is recorded.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from grpclib.const import Status

from pyvider_rpcplugin._version import __version__
from pyvider_rpcplugin.exception import ConfigError, RPCPluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from pyvider_rpcplugin.rpc import CallStatus, InterceptedCall, Interceptor, Observer

__all__ = ["client_interceptor", "instrument", "server_interceptor"]

_T = TypeVar("_T")

_NAME = "pyvider_rpcplugin"
# Calls between processes of one machine take far less than what the conventions' buckets begin with.
_CALL_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
)  # fmt: skip
_START_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Of a server's answers, those that say that something is wrong with the server.
_SERVER_ERRORS = frozenset(
    {
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.UNIMPLEMENTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
    }
)


def instrument(
    target: _T,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> _T:
    """Switch spans and metrics on for a client, asynchronous or blocking, or for a server.

    It comes before the interceptors that were given. For a client there are metrics of its plugin's
    starts and ends, too.

    Args:
        target: What `plugin_client`, `plugin_pool`, `plugin_client_sync` or `plugin_server` made. It
            must not have been started.
        tracer_provider: Whose tracer makes the spans; by default the global one.
        meter_provider: Whose meter measures; by default the global one.

    Returns:
        The same object.

    Raises:
        ConfigError: opentelemetry-api is not installed, or the object is none of these.
        RPCPluginError: It was started already.
    """
    from pyvider_rpcplugin.client import RPCPluginClient  # noqa: PLC0415 - a plugin has none
    from pyvider_rpcplugin.server import RPCPluginServer  # noqa: PLC0415 - a host has none

    thing: Any = target
    blocking = sys.modules.get("pyvider_rpcplugin.sync")
    if blocking is not None and isinstance(thing, blocking.SyncPluginClient):
        thing = thing._client  # noqa: SLF001 - of the same package
    providers: dict[str, Any] = {
        "tracer_provider": tracer_provider,
        "meter_provider": meter_provider,
    }
    made: Interceptor
    if isinstance(thing, RPCPluginClient):
        made = client_interceptor(thing.name, **providers)
        _check_new(thing.name, thing.grpc_channel is not None)
        listener = _LifecycleMetrics(thing.name, _meter(meter_provider))
        thing._lifecycle.listeners.append(listener)  # noqa: SLF001 - of the same package
    elif isinstance(thing, RPCPluginServer):
        made = server_interceptor(**providers)
        _check_new("server", thing.negotiated_version is not None)
    else:
        msg = f"{type(target).__name__} cannot be instrumented: it is neither a client nor a server"
        raise ConfigError(msg, phase="settings")
    thing._interceptors = (made, *thing._interceptors)  # noqa: SLF001 - of the same package
    return target


def client_interceptor(
    server_address: str = "plugin",
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Interceptor:
    """Make the interceptor of a host: a span for each call, whose context goes along, and its duration.

    Args:
        server_address: What is called, as an attribute: the plugin's name.
        tracer_provider: Whose tracer makes the spans; by default the global one.
        meter_provider: Whose meter measures; by default the global one.

    Raises:
        ConfigError: opentelemetry-api is not installed.
    """
    api = _api()
    from opentelemetry import propagate  # noqa: PLC0415 - of the extra

    tracer = _tracer(tracer_provider)
    duration = _meter(meter_provider).create_histogram(
        "rpc.client.call.duration",
        unit="s",
        description="How long calls of plugins take.",
        explicit_bucket_boundaries_advisory=_CALL_SECONDS,
    )

    async def intercept(call: InterceptedCall) -> Observer:
        began = time.perf_counter()
        attributes = {**_facts_of(call), "server.address": server_address}
        span = tracer.start_span(
            attributes["rpc.method"], kind=api.SpanKind.CLIENT, attributes=attributes
        )
        context = api.set_span_in_context(span)
        carrier: Any = call.metadata
        propagate.inject(carrier, context)

        def ended(status: CallStatus) -> None:
            said = _end(span, status, failed=status.status is not Status.OK)
            duration.record(time.perf_counter() - began, {**attributes, **said}, context)

        return ended

    return intercept


def server_interceptor(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Interceptor:
    """Make the interceptor of a plugin: a span for each call, below its caller's, and its duration.

    The handler runs in the span's context: what it starts is below it.

    Args:
        tracer_provider: Whose tracer makes the spans; by default the global one.
        meter_provider: Whose meter measures; by default the global one.

    Raises:
        ConfigError: opentelemetry-api is not installed.
    """
    api = _api()
    from opentelemetry import context as contexts, propagate  # noqa: PLC0415 - of the extra

    tracer = _tracer(tracer_provider)
    duration = _meter(meter_provider).create_histogram(
        "rpc.server.call.duration",
        unit="s",
        description="How long calls are handled.",
        explicit_bucket_boundaries_advisory=_CALL_SECONDS,
    )

    async def intercept(call: InterceptedCall) -> Observer:
        began = time.perf_counter()
        attributes = _facts_of(call)
        # Without a caller's it is a trace of its own, whatever the server was started in.
        parent = propagate.extract(call.metadata, contexts.Context())
        span = tracer.start_span(
            attributes["rpc.method"], parent, kind=api.SpanKind.SERVER, attributes=attributes
        )
        context = api.set_span_in_context(span, parent)
        contexts.attach(context)  # The call's task ends with it.

        def ended(status: CallStatus) -> None:
            said = _end(span, status, failed=status.status in _SERVER_ERRORS)
            duration.record(time.perf_counter() - began, {**attributes, **said}, context)

        return ended

    return intercept


class _LifecycleMetrics:
    """Hears what happens to a client's plugins."""

    def __init__(self, name: str, meter: Meter) -> None:
        self._attributes = {"rpcplugin.plugin.name": name}
        self._counters = {
            event: meter.create_counter(
                f"rpcplugin.plugin.{what}", unit="{event}", description=said
            )
            for event, what, said in (
                ("plugin.started", "starts", "Plugins that have come up."),
                ("plugin.start_failed", "start_failures", "Starts that have come to nothing."),
                (
                    "plugin.exited",
                    "exits",
                    "Plugins that have ended by themselves, or were killed.",
                ),
                ("plugin.restarting", "restarts", "Starts that make up for a plugin that ended."),
            )
        }
        self._counters["plugin.retrying"] = self._counters["plugin.start_failed"]
        self._running = meter.create_up_down_counter(
            "rpcplugin.plugin.running", unit="{plugin}", description="Plugins that run."
        )
        self._duration = meter.create_histogram(
            "rpcplugin.plugin.start.duration",
            unit="s",
            description="How long it takes until a plugin can be called.",
            explicit_bucket_boundaries_advisory=_START_SECONDS,
        )
        self._changes = {"plugin.started": 1, "plugin.exited": -1, "plugin.stopped": -1}
        self._changes |= {"plugin.attached": 1, "plugin.left": -1}

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count an event."""
        counter = self._counters.get(event)
        if counter is not None:
            counter.add(1, self._attributes)
        change = self._changes.get(event)
        if change is not None:
            self._running.add(change, self._attributes)
        if event == "plugin.started":
            self._duration.record(fields["start_seconds"], self._attributes)


def _facts_of(call: InterceptedCall) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": call.method.removeprefix("/")}


def _end(span: Span, status: CallStatus, *, failed: bool) -> dict[str, str]:
    """End a span, and return what the call's end adds to its attributes."""
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - of the extra

    said = {"rpc.response.status_code": status.status.name}
    if failed:
        said["error.type"] = status.status.name
        span.set_status(StatusCode.ERROR, status.message or status.status.name)
    span.set_attributes(said)
    span.end()
    return said


def _api() -> Any:
    """The tracing part of the API.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415 - of the extra
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "opentelemetry":
            raise
        msg = "OpenTelemetry is not installed"
        hint = "Install this package with its extra `otel`, or opentelemetry-api beside it."
        raise ConfigError(msg, hint, phase="settings") from None
    return trace


def _tracer(provider: TracerProvider | None) -> Tracer:
    tracer: Tracer = _api().get_tracer(_NAME, __version__, provider)
    return tracer


def _meter(provider: MeterProvider | None) -> Meter:
    _api()
    from opentelemetry.metrics import get_meter  # noqa: PLC0415 - of the extra

    return get_meter(_NAME, __version__, provider)


def _check_new(what: str, running: bool) -> None:
    if running:
        msg = f"{what} has been started already: it is instrumented before"
        raise RPCPluginError(msg, phase="settings")
