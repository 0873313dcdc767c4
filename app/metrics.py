"""The figures that a process keeps of itself, for Prometheus."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.runs_started = Counter("millstream_runs_started", "Runs accepted.", ["workflow"], registry=self._registry)
        self.runs_finished = Counter(
            "millstream_runs_finished", "Runs ended by this process.", ["workflow", "status"], registry=self._registry
        )
        self.runs_live = Gauge("millstream_runs_live", "Runs executing in this process.", registry=self._registry)
        self.events_written = Counter("millstream_events_written", "Events committed.", registry=self._registry)
        self.events_removed = Counter(
            "millstream_events_removed", "Events removed by retention.", registry=self._registry
        )
        self.commit_seconds = Histogram(
            "millstream_event_commit_seconds",
            "Time of a commit of the event writer.",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
            registry=self._registry,
        )
        self.streams_open = Gauge(
            "millstream_streams_open", "Event streams open in this process.", registry=self._registry
        )

        self.webhook_deliveries = Counter(
            "millstream_webhook_deliveries",
            "Attempts to deliver an event to a webhook.",
            ["outcome"],
            registry=self._registry,
        )

    def render(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
