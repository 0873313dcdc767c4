"""The event log. The one place that speaks the database driver: a row per event is all that it may cost."""

from collections.abc import Sequence
from typing import NamedTuple

from app.store.database import Transaction


class LoggedEvent(NamedTuple):
    """One event as it stands in the log; `payload` is its JSON."""

    sequence: int
    event: str
    payload: str
    result: str | None = None


_INSERT = {
    "sqlite": "INSERT INTO run_events (tenant_id, run_id, sequence, event, payload, result) VALUES (?, ?, ?, ?, ?, ?)",
    "postgresql": (
        "INSERT INTO run_events (tenant_id, run_id, sequence, event, payload, result) SELECT * FROM"
        " unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[], %s::text[])"
    ),
}
_PAGE = {
    "sqlite": (
        "SELECT sequence, event, payload, result FROM run_events"
        " WHERE tenant_id = ? AND run_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
    ),
    "postgresql": (
        "SELECT sequence, event, payload, result FROM run_events"
        " WHERE tenant_id = %s AND run_id = %s AND sequence > %s ORDER BY sequence LIMIT %s"
    ),
}
_LAST = {
    "sqlite": "SELECT max(sequence) FROM run_events WHERE tenant_id = ? AND run_id = ?",
    "postgresql": "SELECT max(sequence) FROM run_events WHERE tenant_id = %s AND run_id = %s",
}
_DELETE = {
    "sqlite": (
        "DELETE FROM run_events WHERE tenant_id = ? AND run_id IN"
        " (SELECT run_id FROM runs WHERE tenant_id = ? AND session_id = ?)"
    ),
    "postgresql": (
        "DELETE FROM run_events WHERE tenant_id = %s AND run_id IN"
        " (SELECT run_id FROM runs WHERE tenant_id = %s AND session_id = %s)"
    ),
}


class NewEvent(NamedTuple):
    """A row to be."""

    tenant: str
    run: str
    sequence: int
    event: str
    payload: str
    result: str | None


def append_events(transaction: Transaction, rows: Sequence[NewEvent]) -> None:
    """Add events whose sequences follow on those in the log; whoever calls holds the runs' locks."""
    if not rows:
        return
    if transaction.dialect == "sqlite":
        transaction.driver(_INSERT, list(rows))
    else:
        transaction.driver(_INSERT, tuple(list(column) for column in zip(*rows, strict=True)))


def read_events(transaction: Transaction, tenant: str, run: str, *, after: int, limit: int) -> list[LoggedEvent]:
    """The events past a sequence, in order."""
    result = transaction.driver(_PAGE, (tenant, run, after, limit))
    return [LoggedEvent._make(row) for row in result]


def last_sequence(transaction: Transaction, tenant: str, run: str) -> int:
    """The number of the run's newest event, 0 when it has none."""
    return transaction.driver(_LAST, (tenant, run)).scalar_one() or 0


def delete_session_events(transaction: Transaction, tenant: str, session: str) -> None:
    """Remove the events of all runs of a session."""
    transaction.driver(_DELETE, (tenant, tenant, session))
