"""The states of a run."""

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run is; the last three are ends, and a run has one."""

    queued = "queued"
    running = "running"
    paused = "paused"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


ENDED = frozenset({RunStatus.completed, RunStatus.failed, RunStatus.cancelled})
