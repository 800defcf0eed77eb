"""Serves a class with all kinds of methods, and prints the spans of its calls as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from pyvider_rpcplugin import otel, plugin_server
from tests.plugins.counter_plugin import Counter


class Traced(Counter):
    async def here(self) -> str:
        """The trace that the handler runs in."""
        return format(trace.get_current_span().get_span_context().trace_id, "032x")


if __name__ == "__main__":
    provider = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server = otel.instrument(plugin_server(handler=Traced()), tracer_provider=provider)
    server.run(backend="trio" if "trio" in sys.argv else "asyncio")
