"""Instruments redis-py and uses hatopo, the one imported before or after the other; prints the spans as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def calls(client: Any) -> None:
    """Every kind of call once: hot path, options, several words, warm path, pipelines, WATCH."""
    client.set("key", "value", ex=100)
    client.get("key")
    client.config_get("maxmemory")
    client.blpop("queue", 0.01)
    pipeline = client.pipeline(transaction=False)
    pipeline.get("key")
    pipeline.incr("n")
    pipeline.execute()
    with client.pipeline() as pipeline:
        pipeline.watch("key")
        pipeline.get("key")
        pipeline.multi()
        pipeline.set("key", "other")
        pipeline.execute()
    with client.client() as pinned:
        pinned.get("key")


def main(port: int, order: str) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = RedisInstrumentor()
    if order == "instrumented-first":
        instrumentor.instrument(tracer_provider=provider)
    hatopo = importlib.import_module("hatopo")
    client = hatopo.standalone("127.0.0.1", port)
    if order == "imported-first":
        instrumentor.instrument(tracer_provider=provider)
    if order == "one-client":
        instrumentor.instrument_client(client, tracer_provider=provider)
        hatopo.standalone("127.0.0.1", port).get("another client's")
    calls(client)
    seen = [span.name for span in exporter.get_finished_spans()]
    exporter.clear()
    if order == "one-client":
        instrumentor.uninstrument_client(client)
    else:
        instrumentor.uninstrument()
    calls(client)
    print(json.dumps({"seen": seen, "after": [span.name for span in exporter.get_finished_spans()]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
