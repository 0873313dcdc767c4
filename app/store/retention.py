"""The events of ended runs that are kept no longer, and in the end the runs.

A run's row says so from before the first of its events is removed until for ever. So whoever reads events first, and
then finds nothing said in the row, has read a whole log.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Integer, bindparam, delete, func, select, update

from app.store.database import Transaction
from app.store.statements import Statement, among
from app.store.tables import EventTable, IdempotencyTable, RunTable, table_of

_runs = table_of(RunTable)
_events = table_of(EventTable)
_keys = table_of(IdempotencyTable)
# Several processes look; each takes what no other is just taking. The condition is that of ix_runs_retention.
_DUE = Statement(
    select(_runs.c.run_id)
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.finished_at <= bindparam("before", type_=_runs.c.finished_at.type),
        _runs.c.finished_at.is_not(None),
        _runs.c.events_gone_at.is_(None),
    )
    .order_by(_runs.c.finished_at)
    .limit(bindparam("count", type_=Integer))
    .with_for_update(key_share=True, skip_locked=True)
)
_LAST = select(func.max(_events.c.sequence)).where(
    _events.c.tenant_id == _runs.c.tenant_id, _events.c.run_id == _runs.c.run_id
)
_ANNOUNCE = Statement(
    {
        dialect: update(_runs)
        .where(_runs.c.tenant_id == bindparam("tenant"), these)
        .values(events_gone_upto=func.coalesce(_runs.c.events_gone_upto, _LAST.scalar_subquery(), 0))
        .returning(_runs.c.run_id, _runs.c.events_gone_upto)
        for dialect, these in among(_runs.c.run_id, "runs").items()
    }
)
_FIRST = Statement(
    select(func.min(_events.c.sequence).label("first")).where(
        _events.c.tenant_id == bindparam("tenant"), _events.c.run_id == bindparam("run")
    )
)
_REMOVE = Statement(
    {
        dialect: delete(_events).where(_events.c.tenant_id == bindparam("tenant"), these)
        for dialect, these in among(_events.c.run_id, "runs").items()
    }
)
_REMOVE_UPTO = Statement(
    delete(_events).where(
        _events.c.tenant_id == bindparam("tenant"),
        _events.c.run_id == bindparam("run"),
        _events.c.sequence <= bindparam("upto"),
    )
)
_CLOSE = Statement(
    {
        dialect: update(_runs)
        .where(_runs.c.tenant_id == bindparam("tenant"), these)
        .values(events_gone_at=bindparam("at", type_=_runs.c.events_gone_at.type))
        for dialect, these in among(_runs.c.run_id, "runs").items()
    }
)
# The condition is that of ix_runs_closed.
_CLOSED = Statement(
    select(_runs.c.run_id)
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.finished_at <= bindparam("before", type_=_runs.c.finished_at.type),
        _runs.c.events_gone_at.is_not(None),
    )
    .order_by(_runs.c.finished_at)
    .limit(bindparam("count", type_=Integer))
    .with_for_update(skip_locked=True)
)
_REMOVE_RUNS = Statement(
    {
        dialect: delete(_runs).where(_runs.c.tenant_id == bindparam("tenant"), these)
        for dialect, these in among(_runs.c.run_id, "runs").items()
    }
)
_REMOVE_KEYS = Statement(
    {
        dialect: delete(_keys).where(_keys.c.tenant_id == bindparam("tenant"), these)
        for dialect, these in among(_keys.c.run_id, "runs").items()
    }
)
_COUNT_AFTER = Statement(
    select(func.count().label("runs"))
    .select_from(_runs)
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.session_id == bindparam("session"),
        _runs.c.ordinal > bindparam("after"),
    )
)
_LOCK_SESSION = Statement(
    select(_runs.c.run_id)
    .where(_runs.c.tenant_id == bindparam("tenant"), _runs.c.session_id == bindparam("session"))
    .order_by(_runs.c.run_id)
    .with_for_update()
)
_FIRST_GONE = Statement(
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
    "postgresql": "SELECT events_gone_upto FROM runs WHERE tenant_id = $1 AND run_id = $2",
}


class DueRun(NamedTuple):
    """A run whose events can no longer be read, some of which may still be there."""

    run_id: str
    last: int
    """The number of its last event; 0 when none was there to be removed."""


def take_due_runs(transaction: Transaction, tenant: str, *, before: datetime, count: int) -> list[DueRun]:
    """Some of the runs that ended before, oldest first, locked, and from this transaction's commit on unreadable."""
    rows = transaction.all(_DUE, {"tenant": tenant, "before": before, "count": count})
    if not rows:
        return []
    due = [row["run_id"] for row in rows]
    announced = transaction.all(_ANNOUNCE, {"tenant": tenant, "runs": due})
    last = {row["run_id"]: row["events_gone_upto"] for row in announced}
    return [DueRun(run_id, last[run_id]) for run_id in due]


def first_sequence(transaction: Transaction, tenant: str, run: str) -> int | None:
    """The number of the oldest of the run's events that is still there."""
    row = transaction.one(_FIRST, {"tenant": tenant, "run": run})
    return None if row is None else row["first"]


def remove_events(transaction: Transaction, tenant: str, runs: Collection[str]) -> int:
    """Remove all events of the runs; how many there were."""
    return transaction.count(_REMOVE, {"tenant": tenant, "runs": list(runs)})


def remove_events_upto(transaction: Transaction, tenant: str, run: str, upto: int) -> int:
    """Remove the run's events up to a number; how many there were."""
    return transaction.count(_REMOVE_UPTO, {"tenant": tenant, "run": run, "upto": upto})


def close_runs(transaction: Transaction, tenant: str, runs: Collection[str], *, at: datetime) -> None:
    """Note that nothing is left of the runs' events."""
    transaction.run(_CLOSE, {"tenant": tenant, "runs": list(runs), "at": at})


def take_closed_runs(transaction: Transaction, tenant: str, *, before: datetime, count: int) -> list[str]:
    """Some of the runs that ended before and have no events left, oldest first, locked."""
    return [row["run_id"] for row in transaction.all(_CLOSED, {"tenant": tenant, "before": before, "count": count})]


def remove_runs(transaction: Transaction, tenant: str, runs: Collection[str]) -> int:
    """Remove the runs, without their events, and all that is about them: keys, webhooks, deliveries; how many runs."""
    given = {"tenant": tenant, "runs": list(runs)}
    transaction.run(_REMOVE_KEYS, given)
    return transaction.count(_REMOVE_RUNS, given)


def count_runs_after(transaction: Transaction, tenant: str, session: str, ordinal: int) -> int:
    """How many runs of the session, after one, are still there."""
    row = transaction.one(_COUNT_AFTER, {"tenant": tenant, "session": session, "after": ordinal})
    return 0 if row is None else int(row["runs"])


def gone_upto(transaction: Transaction, tenant: str, run: str) -> int | None:
    """The number of the run's last event when its events can no longer be read, else None."""
    upto: int | None = next((upto for (upto,) in transaction.driver(_GONE_UPTO, (tenant, run))), None)
    return upto


def is_kept(transaction: Transaction, tenant: str, run: str) -> bool:
    """Whether the run is there, and its events can be read."""
    return transaction.driver(_GONE_UPTO, (tenant, run)) == [(None,)]


def first_gone_run(transaction: Transaction, tenant: str, session: str, *, ordinal: int) -> str | None:
    """The first run of the session, after one, whose events can no longer be read."""
    row = transaction.one(_FIRST_GONE, {"tenant": tenant, "session": session, "after": ordinal})
    return None if row is None else row["run_id"]


def lock_session_runs(transaction: Transaction, tenant: str, session: str) -> None:
    """Keep others off the session's runs before their events are deleted: a run is locked before its events."""
    if transaction.dialect == "postgresql":
        transaction.all(_LOCK_SESSION, {"tenant": tenant, "session": session})
