"""The event log. The one place that speaks the database driver: a row per event is all that it may cost."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from app.store.database import Transaction
from app.workflow.encoding import decode, encode


class LoggedEvent(NamedTuple):
    """One event as it stands in the log; `payload` is its JSON."""

    sequence: int
    event: str
    payload: str
    result: str | None = None


_INSERT = {
    "sqlite": "INSERT INTO run_events (tenant_id, run_id, sequence, event, payload, result) VALUES (?, ?, ?, ?, ?, ?)",
    "postgresql": (
        "INSERT INTO run_events (tenant_id, run_id, sequence, event, payload, result)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[])"
    ),
}
_FENCE = {
    "sqlite": (
        "SELECT run_id, attempt FROM runs WHERE tenant_id = ? AND status = 'running'"
        " AND run_id IN (SELECT value FROM json_each(?))"
    )
}
_APPEND_FENCED = {
    "postgresql": (
        "WITH held AS MATERIALIZED (SELECT run_id AS r, attempt AS a FROM runs WHERE tenant_id = $1"
        "  AND run_id = ANY($2::text[]) AND status = 'running' ORDER BY run_id FOR NO KEY UPDATE),"
        " kept AS (SELECT r FROM held JOIN unnest($2::text[], $3::int[]) AS wanted (r, a) USING (r, a)),"
        " added AS (INSERT INTO run_events (tenant_id, run_id, sequence, event, payload, result)"
        "  SELECT t, r, s, e, p, x FROM unnest($4::text[], $5::text[], $6::int[], $7::text[], $8::text[], $9::text[])"
        "  AS new (t, r, s, e, p, x) JOIN kept USING (r))"
        " SELECT r FROM kept"
    )
}
_PAGE = {
    "sqlite": (
        "SELECT sequence, event, payload, result FROM run_events"
        " WHERE tenant_id = ? AND run_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
    ),
    "postgresql": (
        "SELECT sequence, event, payload, result FROM run_events"
        " WHERE tenant_id = $1 AND run_id = $2 AND sequence > $3 ORDER BY sequence LIMIT $4"
    ),
}
_LAST = {
    "sqlite": "SELECT max(sequence) FROM run_events WHERE tenant_id = ? AND run_id = ?",
    "postgresql": "SELECT max(sequence) FROM run_events WHERE tenant_id = $1 AND run_id = $2",
}
_DELETE = {
    "sqlite": (
        "DELETE FROM run_events WHERE tenant_id = ? AND run_id IN"
        " (SELECT run_id FROM runs WHERE tenant_id = ? AND session_id = ?)"
    ),
    "postgresql": (
        "DELETE FROM run_events WHERE tenant_id = $1 AND run_id IN"
        " (SELECT run_id FROM runs WHERE tenant_id = $2 AND session_id = $3)"
    ),
}


NewEvent: TypeAlias = tuple[str, str, int, str, str, str | None]
"""A row to be: tenant, run, sequence, event, payload, result."""


def append_events(transaction: Transaction, rows: Sequence[NewEvent]) -> None:
    """Add events whose sequences follow on those in the log; whoever calls holds the runs' locks."""
    if not rows:
        return
    if transaction.dialect == "sqlite":
        transaction.driver_many(_INSERT["sqlite"], list(rows))
    else:
        transaction.driver_add(_INSERT, _columns(rows), table="run_events")


def append_fenced(
    transaction: Transaction, tenant: str, attempts: Mapping[str, int], rows: Sequence[NewEvent]
) -> set[str]:
    """Add a tenant's events of those of the runs that still are at these attempts; which runs these are.

    On Postgres it is a single statement, which locks the runs' rows until it is committed.
    """
    if transaction.dialect == "sqlite":
        held = transaction.driver(_FENCE, (tenant, encode(list(attempts)).decode()))
        kept = {run for run, attempt in held if attempts[run] == attempt}
        whole = len(kept) == len(attempts)
        transaction.driver_many(_INSERT["sqlite"], [row for row in rows if whole or row[1] in kept])
        return kept
    wanted = list(attempts), list(attempts.values())
    found = transaction.driver(_APPEND_FENCED, (tenant, *wanted, *_columns(rows)))
    return {run for (run,) in found}


def _columns(rows: Sequence[NewEvent]) -> list[tuple[Any, ...]]:
    """The rows as arrays, one for each column: one statement takes as many as there are."""
    return list(zip(*rows, strict=True)) if rows else [()] * 6


def read_events(transaction: Transaction, tenant: str, run: str, *, after: int, limit: int) -> list[LoggedEvent]:
    """The events past a sequence, in order."""
    return [LoggedEvent._make(row) for row in transaction.driver(_PAGE, (tenant, run, after, limit))]


def last_sequence(transaction: Transaction, tenant: str, run: str) -> int:
    """The number of the run's newest event, 0 when it has none."""
    ((last,),) = transaction.driver(_LAST, (tenant, run))
    return last or 0


def last_moment(transaction: Transaction, tenant: str, run: str) -> datetime | None:
    """When the run's newest event was said; None when it has none."""
    last = last_sequence(transaction, tenant, run)
    newest = read_events(transaction, tenant, run, after=last - 1, limit=1)
    return datetime.fromisoformat(decode(newest[0].payload)["created_at"]) if newest else None


def delete_session_events(transaction: Transaction, tenant: str, session: str) -> None:
    """Remove the events of all runs of a session."""
    transaction.driver(_DELETE, (tenant, tenant, session))
