"""The events of ended runs that are kept no longer.

A run's row says so from before the first of its events is removed until for ever. So whoever reads events first, and
then finds nothing said in the row, has read a whole log.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, select, update

from app.store.database import Transaction
from app.store.tables import EventTable, RunTable, table_of

_runs = table_of(RunTable)
_events = table_of(EventTable)
_THESE = (_runs.c.tenant_id == bindparam("tenant")) & _runs.c.run_id.in_(bindparam("runs", expanding=True))
# Several processes look; each takes what no other is just taking. The condition is that of ix_runs_retention.
_DUE = (
    select(_runs.c.run_id)
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.finished_at <= bindparam("before", type_=_runs.c.finished_at.type),
        _runs.c.finished_at.is_not(None),
        _runs.c.events_gone_at.is_(None),
    )
    .order_by(_runs.c.finished_at)
    .limit(bindparam("count"))
    .with_for_update(key_share=True, skip_locked=True)
)
_LAST = select(func.max(_events.c.sequence)).where(
    _events.c.tenant_id == _runs.c.tenant_id, _events.c.run_id == _runs.c.run_id
)
_ANNOUNCE = (
    update(_runs)
    .where(_THESE)
    .values(events_gone_upto=func.coalesce(_runs.c.events_gone_upto, _LAST.scalar_subquery(), 0))
    .returning(_runs.c.run_id, _runs.c.events_gone_upto)
)
_FIRST = select(func.min(_events.c.sequence)).where(
    _events.c.tenant_id == bindparam("tenant"), _events.c.run_id == bindparam("run")
)
_REMOVE = delete(_events).where(
    _events.c.tenant_id == bindparam("tenant"), _events.c.run_id.in_(bindparam("runs", expanding=True))
)
_REMOVE_UPTO = delete(_events).where(
    _events.c.tenant_id == bindparam("tenant"),
    _events.c.run_id == bindparam("run"),
    _events.c.sequence <= bindparam("upto"),
)
_CLOSE = update(_runs).where(_THESE).values(events_gone_at=bindparam("at", type_=_runs.c.events_gone_at.type))
_LOCK_SESSION = (
    select(_runs.c.run_id)
    .where(_runs.c.tenant_id == bindparam("tenant"), _runs.c.session_id == bindparam("session"))
    .order_by(_runs.c.run_id)
    .with_for_update()
)
_FIRST_GONE = (
    select(_runs.c.run_id)
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.session_id == bindparam("session"),
        _runs.c.ordinal > bindparam("after"),
        _runs.c.events_gone_upto.is_not(None),
    )
    .order_by(_runs.c.ordinal)
    .limit(1)
)
_GONE_UPTO = {
    "sqlite": "SELECT events_gone_upto FROM runs WHERE tenant_id = ? AND run_id = ?",
    "postgresql": "SELECT events_gone_upto FROM runs WHERE tenant_id = %s AND run_id = %s",
}


class DueRun(NamedTuple):
    """A run whose events can no longer be read, some of which may still be there."""

    run_id: str
    last: int
    """The number of its last event; 0 when none was there to be removed."""


def take_due_runs(transaction: Transaction, tenant: str, *, before: datetime, count: int) -> list[DueRun]:
    """Some of the runs that ended before, oldest first, locked, and from this transaction's commit on unreadable."""
    due = list(transaction.execute(_DUE, {"tenant": tenant, "before": before, "count": count}).scalars())
    if not due:
        return []
    last = {row.run_id: row.events_gone_upto for row in transaction.execute(_ANNOUNCE, {"tenant": tenant, "runs": due})}
    return [DueRun(run_id, last[run_id]) for run_id in due]


def first_sequence(transaction: Transaction, tenant: str, run: str) -> int | None:
    """The number of the oldest of the run's events that is still there."""
    first: int | None = transaction.execute(_FIRST, {"tenant": tenant, "run": run}).scalar_one()
    return first


def remove_events(transaction: Transaction, tenant: str, runs: Collection[str]) -> int:
    """Remove all events of the runs; how many there were."""
    return transaction.execute(_REMOVE, {"tenant": tenant, "runs": list(runs)}).rowcount


def remove_events_upto(transaction: Transaction, tenant: str, run: str, upto: int) -> int:
    """Remove the run's events up to a number; how many there were."""
    return transaction.execute(_REMOVE_UPTO, {"tenant": tenant, "run": run, "upto": upto}).rowcount


def close_runs(transaction: Transaction, tenant: str, runs: Collection[str], *, at: datetime) -> None:
    """Note that nothing is left of the runs' events."""
    transaction.execute(_CLOSE, {"tenant": tenant, "runs": list(runs), "at": at})


def gone_upto(transaction: Transaction, tenant: str, run: str) -> int | None:
    """The number of the run's last event when its events can no longer be read, else None."""
    upto: int | None = next((upto for (upto,) in transaction.driver(_GONE_UPTO, (tenant, run))), None)
    return upto


def is_kept(transaction: Transaction, tenant: str, run: str) -> bool:
    """Whether the run is there, and its events can be read."""
    return transaction.driver(_GONE_UPTO, (tenant, run)) == [(None,)]


def first_gone_run(transaction: Transaction, tenant: str, session: str, *, ordinal: int) -> str | None:
    """The first run of the session, after one, whose events can no longer be read."""
    found: str | None = transaction.execute(
        _FIRST_GONE, {"tenant": tenant, "session": session, "after": ordinal}
    ).scalar_one_or_none()
    return found


def lock_session_runs(transaction: Transaction, tenant: str, session: str) -> None:
    """Keep others off the session's runs before their events are deleted: a run is locked before its events."""
    if transaction.dialect == "postgresql":
        transaction.execute(_LOCK_SESSION, {"tenant": tenant, "session": session})
