"""What this code is working on: the ids that tie log lines, problems and spans of one request or run together."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

REQUEST_ID: ContextVar[str | None] = ContextVar("millstream_request_id", default=None)
"""The request that is being answered."""
TRACEPARENT: ContextVar[str | None] = ContextVar("millstream_traceparent", default=None)
"""The trace that this belongs to, as W3C writes it; None while traces are off."""


class RunIds(Protocol):
    """What a log line says of the run that wrote it; a row of runs has it."""

    run_id: str
    session_id: str
    workflow: str
    attempt: int


RUN: ContextVar[RunIds | None] = ContextVar("millstream_run", default=None)
"""The run that is being executed; author code is within, its threads too."""


class Span(Protocol):
    """A piece of work in a trace."""

    def within(self) -> AbstractContextManager[object]:
        """What is done inside of the block is part of the span."""

    def rename(self, name: str) -> None:
        """Call it what it turned out to be."""

    def say(self, attributes: Mapping[str, str | int]) -> None:
        """Say more of it: names and numbers, never what a caller or an author has written."""

    def end(self, error: BaseException | None = None) -> None:
        """It is over; of an error the span has the type, not the message."""


class Tracer(Protocol):
    """Makes spans; see app/tracing.py."""

    def request(self, traceparent: str | None, method: str) -> Span:
        """A request, within the trace that its caller names."""

    def run(self, traceparent: str | None, ids: RunIds) -> Span:
        """An attempt of a run, within the trace of the request that started it."""

    def step(self, name: str) -> Span:
        """A step of the run around it."""

    def instrumentation(self) -> Any:
        """What makes pydantic-ai write its spans into the same trace."""


TRACER: ContextVar[Tracer | None] = ContextVar("millstream_tracer", default=None)
"""What makes spans of the run that is being executed; None while traces are off."""


ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def traces_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables name a collector for traces, and do not turn them off."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    other = environment.get("OTEL_TRACES_EXPORTER", "otlp") not in {"otlp", ""}
    return any(environment.get(name) for name in ENDPOINTS) and not off and not other


def trace_id() -> str | None:
    """The trace that this belongs to, if there is one."""
    traceparent = TRACEPARENT.get()
    return None if traceparent is None else traceparent.split("-")[1]


def step_span(name: str) -> AbstractContextManager[Span | None]:
    """A span around a step of the run that is being executed; nothing while traces are off."""
    tracer = TRACER.get()
    return nullcontext() if tracer is None else _around(tracer.step(name))


@contextmanager
def _around(span: Span) -> Iterator[Span]:
    try:
        with span.within():
            yield span
    except BaseException as error:
        span.end(error)
        raise
    span.end()
