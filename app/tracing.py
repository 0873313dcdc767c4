"""Spans by OpenTelemetry: the only module that knows it, loaded where the environment names a collector."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import __version__
from app.correlation import TRACEPARENT, RunIds

CLOSE_SECONDS = 5.0
"""How long a process that stops waits for its last spans to be taken."""
ATTRIBUTES = frozenset({
    "error.type", "gen_ai.agent.name", "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model",
    "gen_ai.response.model", "gen_ai.system", "gen_ai.tool.name", "http.request.method", "http.response.status_code",
    "http.route", "millstream.attempt", "millstream.run_id", "millstream.session_id", "millstream.status",
    "millstream.workflow", "server.address", "server.port",
})  # fmt: skip
COUNTS = ("gen_ai.usage.", "gen_ai.aggregated_usage.")
"""What a span may say, of pydantic-ai's too: names and numbers. Prompts, inputs and answers are in no trace."""

_PROPAGATOR = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Makes spans, and sends them where OpenTelemetry's own variables say."""

    def __init__(self) -> None:
        named = Resource({SERVICE_NAME: "millstream", SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Discreet(OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("millstream", __version__)

    def request(self, traceparent: str | None, method: str) -> "OpenTelemetrySpan":
        """A request, within the trace that its caller names."""
        attributes = {"http.request.method": method}
        return self._start(method, traceparent, trace.SpanKind.SERVER, attributes)

    def run(self, traceparent: str | None, ids: RunIds) -> "OpenTelemetrySpan":
        """An attempt of a run, within the trace of the request that started it."""
        attributes: dict[str, str | int] = {
            "millstream.run_id": ids.run_id,
            "millstream.session_id": ids.session_id,
            "millstream.workflow": ids.workflow,
            "millstream.attempt": ids.attempt,
        }
        return self._start(f"run {ids.workflow}", traceparent, trace.SpanKind.CONSUMER, attributes)

    def step(self, name: str) -> "OpenTelemetrySpan":
        """A step of the run around it."""
        return OpenTelemetrySpan(self._tracer.start_span(f"step {name}"))

    def instrumentation(self) -> Any:
        """What makes pydantic-ai write its spans into the same trace, without what was said."""
        from pydantic_ai.models.instrumented import InstrumentationSettings  # noqa: PLC0415  loaded with the first model

        return InstrumentationSettings(tracer_provider=self._provider, include_content=False)

    async def close(self) -> None:
        """Send what is left; a collector that is away keeps nobody."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="millstream-spans")
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)

    def _start(
        self, name: str, traceparent: str | None, kind: trace.SpanKind, attributes: Mapping[str, str | int]
    ) -> "OpenTelemetrySpan":
        carried = {} if traceparent is None else {"traceparent": traceparent}
        context = _PROPAGATOR.extract(carried, context=Context())
        return OpenTelemetrySpan(self._tracer.start_span(name, context, kind, attributes))


class OpenTelemetrySpan:
    """One span."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @contextmanager
    def within(self) -> Iterator[None]:
        """What is done inside of the block is part of the span."""
        token = TRACEPARENT.set(_traceparent(self._span.get_span_context()))
        try:
            with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
                yield
        finally:
            TRACEPARENT.reset(token)

    def rename(self, name: str) -> None:
        """Call it what it turned out to be."""
        self._span.update_name(name)

    def say(self, attributes: Mapping[str, str | int]) -> None:
        """Say more of it."""
        self._span.set_attributes(attributes)

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""
        if error is not None:
            self._span.set_status(trace.StatusCode.ERROR)
            self._span.set_attribute("error.type", type(error).__name__)
        self._span.end()


class _Discreet(SpanExporter):
    """Sends spans without what may repeat a prompt or an answer: events, messages of errors, most attributes."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them."""
        return self._exporter.export([_discreet(span) for span in spans])

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)


def _discreet(span: ReadableSpan) -> ReadableSpan:
    attributes = {
        name: value for name, value in (span.attributes or {}).items() if name in ATTRIBUTES or name.startswith(COUNTS)
    }
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        kind=span.kind,
        status=trace.Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _traceparent(context: trace.SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
