"""The figures, and what each is to be beside the bare server's."""

from dataclasses import dataclass

DATABASES = ("sqlite", "postgres")


@dataclass(frozen=True)
class Goal:
    """A bound: of our figure as a ratio to the bare server's, or as it is."""

    bound: float
    at_least: bool = False
    ratio: bool = True

    def met(self, ours: float, ratio: float | None) -> bool | None:
        """Whether we hold it; None where there is nothing to compare with."""
        figure = ratio if self.ratio else ours
        if figure is None:
            return None
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{'x' if self.ratio else ''}"


@dataclass(frozen=True)
class Figure:
    """A line of the table."""

    title: str
    unit: str
    sqlite: Goal | None = None
    postgres: Goal | None = None
    percentile: int = 50

    def goal(self, database: str) -> Goal | None:
        """The goal on a database."""
        return self.sqlite if database == "sqlite" else self.postgres


def _at_most(bound: float) -> Goal:
    return Goal(bound)


def _at_least(bound: float) -> Goal:
    return Goal(bound, at_least=True)


def _absolute(bound: float) -> Goal:
    return Goal(bound, ratio=False)


FIGURES = {
    "first_event": Figure("first event, p50", "ms", _at_most(2), _at_most(3)),
    "first_event_p99": Figure("first event, p99", "ms", percentile=99),
    "complete": Figure("run complete, p50", "ms", _at_most(2), _at_most(2.5)),
    "complete_p99": Figure("run complete, p99", "ms", percentile=99),
    "runs_16": Figure("runs/s, 16 clients", "1/s", _at_least(0.5), _at_least(0.3)),
    "runs_64": Figure("runs/s, 64 clients", "1/s"),
    "cpu_runs": Figure("server CPU per 1,000 runs", "s", _at_most(2.5), _at_most(4)),
    "events_one": Figure("events/s, one run of 10,000", "1/s", _at_least(0.5), _at_least(1)),
    "cpu_events": Figure("server CPU per 100,000 events of it", "s"),
    "events_many": Figure("events/s, 32 runs of 1,000", "1/s", _at_least(0.5), _at_least(1)),
    "replay": Figure("replay of 10,000 events", "1/s", _at_least(0.33), _at_least(2)),
    "tail": Figure("the last 100 of 10,000, p50", "ms", _at_most(2), _at_most(1)),
    "get_state": Figure("GET of a state, 8 clients", "1/s", _at_least(0.5), _at_least(0.8)),
    "patch_state": Figure("PATCH of a state, 8 clients", "1/s", _at_least(0.5), _at_least(0.6)),
    "start": Figure("start to ready", "s", _absolute(1.5), _absolute(2)),
    "memory": Figure("memory after the start", "MB", _absolute(110), _absolute(120)),
    "idle_cpu": Figure("CPU without clients", "%", _absolute(1), _absolute(1.5)),
    "idle_open": Figure("1,000 idle streams: all open after", "s", _absolute(3), _absolute(3)),
    "idle_memory": Figure("memory of one", "KB", _absolute(50), _absolute(50)),
}
