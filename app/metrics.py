"""The figures that a process keeps of itself, for Prometheus."""

from collections.abc import Callable, Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

UNREGISTERED = "(unregistered)"
"""What a workflow is called that this process does not serve: labels are names that we chose, never what came in."""
OUTCOMES = ("completed", "failed", "cancelled")


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self, workflows: Iterable[str] = ()) -> None:
        """`workflows` are the names that are served; those of others are not told apart."""
        self._registry = registry = CollectorRegistry()
        self._workflows = frozenset(workflows)
        self._started = Counter("millstream_runs_started", "Runs accepted.", ["workflow"], registry=registry)
        self._finished = Counter(
            "millstream_runs_finished", "Runs ended by this process.", ["workflow", "status"], registry=registry
        )
        self._run_seconds = Histogram(
            "millstream_run_duration_seconds",
            "Time from a run's first start to its end, pauses included.",
            ["workflow"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
            registry=registry,
        )
        self.runs_live = Gauge("millstream_runs_live", "Runs executing in this process.", registry=registry)
        self.recoveries = Counter(
            "millstream_recoveries", "Runs taken over from a worker that had died.", registry=registry
        )
        self._keep_queue(registry)
        self._keep_events(registry)
        self._keep_streams(registry)
        self._keep_requests(registry)
        self._keep_process(registry)
        # Asked for once: to find a child by its labels costs more than to count. And they are there from zero on, so
        # that the first run is seen as a rise.
        names = self._workflows
        self._start = {name: self._started.labels(name).inc for name in names}
        self._took = {name: self._run_seconds.labels(name).observe for name in names}
        self._end = {(name, end): self._finished.labels(name, end).inc for name in names for end in OUTCOMES}

    def _keep_queue(self, registry: CollectorRegistry) -> None:
        self.database_up = Gauge(
            "millstream_database_up", "Whether the database has answered this scrape.", registry=registry
        )
        self.runs_queued = Gauge(
            "millstream_runs_queued", "Runs that wait in the database, 10000 at the most.", registry=registry
        )
        self.oldest_queued = Gauge(
            "millstream_runs_queued_oldest_seconds", "Age of the run that waits longest.", registry=registry
        )

    def _keep_events(self, registry: CollectorRegistry) -> None:
        self.events_written = Counter("millstream_events_written", "Events committed.", registry=registry)
        self.events_removed = Counter("millstream_events_removed", "Events removed by retention.", registry=registry)
        self._commit_seconds = Histogram(
            "millstream_event_commit_seconds",
            "Time of a commit of the event writer.",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
            registry=registry,
        )
        self._commit_events = Histogram(
            "millstream_event_commit_events",
            "Events in a commit of the event writer.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=registry,
        )

    def _keep_streams(self, registry: CollectorRegistry) -> None:
        self.streams_open = Gauge("millstream_streams_open", "Event streams open in this process.", registry=registry)
        self.stream_lag_events = Gauge(
            "millstream_stream_lag_events",
            "Events that the reader furthest behind has yet to take, of runs that execute here.",
            registry=registry,
        )
        self.stream_lag_seconds = Gauge(
            "millstream_stream_lag_seconds", "Time that the slowest reader has taken nothing.", registry=registry
        )
        self.readers_dropped = Counter(
            "millstream_readers_dropped", "Readers dropped because they took nothing.", registry=registry
        )

    def _keep_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "millstream_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "millstream_http_request_duration_seconds",
            "Time until the answer begins.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
            registry=registry,
        )
        self._counters: dict[tuple[str, str, int], Callable[[], None]] = {}
        self._refused = Counter(
            "millstream_requests_refused", "Requests refused for a limit, or for now.", ["code"], registry=registry
        )
        self.webhook_deliveries = Counter(
            "millstream_webhook_deliveries", "Deliveries to webhooks tried.", ["outcome"], registry=registry
        )

    def _keep_process(self, registry: CollectorRegistry) -> None:
        self.loop_lag = Histogram(
            "millstream_event_loop_lag_seconds",
            "How late the event loop was with what was due.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
            registry=registry,
        )
        ProcessCollector(registry=registry)

    def run_started(self, workflow: str) -> None:
        """A run has been accepted."""
        if workflow in self._workflows:
            self._start[workflow]()
        else:
            self._started.labels(UNREGISTERED).inc()

    def run_finished(self, workflow: str, status: str, seconds: float | None) -> None:
        """A run has ended, and took so long from its first start, if it had one."""
        if workflow not in self._workflows:
            self._finished.labels(UNREGISTERED, status).inc()
            return
        self._end[workflow, status]()
        if seconds is not None:
            self._took[workflow](seconds)

    def committed(self, events: int, seconds: float) -> None:
        """Events were committed together."""
        self._commit_seconds.observe(seconds)
        self._commit_events.observe(events)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template, never the path."""
        key = (method, route, status // 100)
        count = self._counters.get(key)
        if count is None:
            count = self._counters[key] = self._requests.labels(method, route, f"{status // 100}xx").inc
        count()
        self._request_seconds.observe(seconds)

    def refused(self, code: str) -> None:
        """A request was refused, by a code of ours."""
        self._refused.labels(code).inc()

    def render(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
