"""The rows of runs."""

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    Select,
    Text,
    any_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    union_all,
    update,
)

from app.store.database import Record, Transaction
from app.store.statements import Statement, among
from app.store.tables import RunRow, RunTable, SessionTable, table_of
from app.workflow.status import RunStatus

_runs = table_of(RunTable)
_sessions = table_of(SessionTable)
_OF_SESSION = (_sessions.c.tenant_id == _runs.c.tenant_id) & (_sessions.c.session_id == _runs.c.session_id)
_KEY = (_runs.c.tenant_id == bindparam("tenant")) & (_runs.c.run_id == bindparam("run"))
_GET = Statement(select(_runs).where(_KEY))


def _of_tenants(statement: Select[Any]) -> Statement:
    """The statement for the runs of a tenant, on Postgres of several: there a journey to the database is what costs."""
    several = any_(bindparam("tenants", type_=ARRAY(Text)))
    return Statement(
        {
            "sqlite": statement.where(_runs.c.tenant_id == bindparam("tenants")),
            "postgresql": statement.where(_runs.c.tenant_id == several),
        }
    )


_LOCK = Statement(select(_runs).where(_KEY).with_for_update(key_share=True))
_INSERT = Statement(insert(_runs))
_CLAIM = Statement(
    update(_runs)
    .where(_KEY, _runs.c.status == RunStatus.queued.value)
    .values(
        status=RunStatus.running.value,
        attempt=_runs.c.attempt + 1,
        worker_id=bindparam("worker"),
        started_at=func.coalesce(_runs.c.started_at, bindparam("at", type_=_runs.c.started_at.type)),
        claimed_at=bindparam("at", type_=_runs.c.claimed_at.type),
        base_revision=func.coalesce(
            _runs.c.base_revision,
            select(_sessions.c.revision)
            .where(_sessions.c.tenant_id == _runs.c.tenant_id, _sessions.c.session_id == _runs.c.session_id)
            .scalar_subquery(),
        ),
    )
    .returning(_runs)
)
_PAUSE = Statement(
    update(_runs)
    .where(_KEY)
    .values(
        status=RunStatus.paused.value,
        question=bindparam("ask"),
        paused_until=bindparam("until", type_=_runs.c.paused_until.type),
        used_seconds=bindparam("used"),
    )
)
_REQUEUE = Statement(
    update(_runs)
    .where(_KEY)
    .values(
        status=RunStatus.queued.value,
        worker_id=None,
        question=None,
        paused_until=None,
        recoveries=bindparam("deaths"),
        used_seconds=bindparam("used"),
    )
)
_REQUEST_CANCEL = Statement(
    update(_runs)
    .where(_KEY)
    .values(
        cancel_requested_at=func.coalesce(_runs.c.cancel_requested_at, bindparam("at", type_=_runs.c.created_at.type))
    )
)
_CANCELS = _of_tenants(
    select(_runs).where(
        _runs.c.status == RunStatus.running.value,
        _runs.c.worker_id == bindparam("worker"),
        _runs.c.cancel_requested_at.is_not(None),
    )
)
_UNDER = _of_tenants(
    select(_runs.c.tenant_id, _runs.c.run_id)
    .where(
        _runs.c.status == RunStatus.running.value,
        _runs.c.worker_id == bindparam("worker"),
    )
    .order_by(_runs.c.run_id)
)
# Several processes look; each takes what no other is just taking.
_OVERDUE = _of_tenants(
    select(_runs)
    .where(
        _runs.c.status == RunStatus.paused.value,
        _runs.c.paused_until <= bindparam("at", type_=_runs.c.paused_until.type),
    )
    .with_for_update(key_share=True, skip_locked=True)
)
_SET_BASE = Statement(update(_runs).where(_KEY).values(base_revision=bindparam("base")))
_FINISH = Statement(
    update(_runs)
    .where(_KEY)
    .values(
        status=bindparam("to"),
        content=bindparam("set_content"),
        content_truncated=bindparam("truncated"),
        error=bindparam("set_error"),
        session_revision=bindparam("revision"),
        finished_at=bindparam("at"),
    )
)
# A literal: what is a parameter could be any status, so that the index of queued runs would not serve it.
_QUEUED: ColumnElement[str] = literal_column(f"'{RunStatus.queued.value}'")
_HAS_THE_TURN = _runs.c.run_id == _sessions.c.active_run_id
_IN_QUEUE = (
    (_runs.c.tenant_id == bindparam("tenant"))
    & (_runs.c.session_id == bindparam("session"))
    & (_runs.c.status == _QUEUED)
)
_NEXT = Statement(
    select(_runs).where(_IN_QUEUE, _runs.c.ordinal > bindparam("after")).order_by(_runs.c.ordinal).limit(1)
)
_POSITION = Statement(
    select(func.count().label("place"))
    .select_from(_runs.join(_sessions, _OF_SESSION))
    .where(
        _IN_QUEUE,
        _runs.c.ordinal <= bindparam("upto"),
        _runs.c.run_id != func.coalesce(_sessions.c.active_run_id, ""),
    )
)
_OF_A_SESSION = (_runs.c.tenant_id == bindparam("tenant")) & (_runs.c.session_id == bindparam("session"))
_SINCE = Statement(select(_runs).where(_OF_A_SESSION, _runs.c.ordinal > bindparam("after")).order_by(_runs.c.ordinal))
# Those in the queue, and the one that has the turn: an old session has many others, which are not looked at.
_LIVE = Statement(
    union_all(
        select(_runs).where(_IN_QUEUE),
        select(_runs)
        .join_from(_sessions, _runs, (_runs.c.tenant_id == _sessions.c.tenant_id) & _HAS_THE_TURN)
        .where(
            _sessions.c.tenant_id == bindparam("tenant"),
            _sessions.c.session_id == bindparam("session"),
            _runs.c.status != _QUEUED,
        ),
    ).order_by("ordinal")
)
_WITH_ORDINALS = Statement(
    {dialect: select(_runs).where(_OF_A_SESSION, of) for dialect, of in among(_runs.c.ordinal, "ordinals").items()}
)
_READY = Statement(
    select(_runs)
    .join_from(_runs, _sessions, _OF_SESSION)
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.status == RunStatus.queued.value,
        _sessions.c.active_run_id == _runs.c.run_id,
    )
)
_BY_STATUS = Statement(
    select(_runs).where(_runs.c.tenant_id == bindparam("tenant"), _runs.c.status == bindparam("with"))
)


def get_run(transaction: Transaction, tenant: str, run: str) -> RunRow | None:
    """The run, or None."""
    row = transaction.one(_GET, {"tenant": tenant, "run": run})
    return None if row is None else RunRow.of(row)


def lock_run(transaction: Transaction, tenant: str, run: str) -> RunRow | None:
    """The run, locked until the transaction ends."""
    row = transaction.one(_LOCK, {"tenant": tenant, "run": run})
    return None if row is None else RunRow.of(row)


def insert_run(transaction: Transaction, row: RunRow) -> None:
    """Add the run."""
    transaction.run(_INSERT, row.values)


def claim_run(transaction: Transaction, tenant: str, run: str, *, worker: str, at: datetime) -> RunRow | None:
    """Take a queued run for a worker, as one more attempt; None when it is not queued."""
    row = transaction.one(_CLAIM, {"tenant": tenant, "run": run, "worker": worker, "at": at})
    return None if row is None else RunRow.of(row)


def set_base_revision(transaction: Transaction, tenant: str, run: str, base_revision: int) -> None:
    """Freeze the state that the run starts from."""
    transaction.run(_SET_BASE, {"tenant": tenant, "run": run, "base": base_revision})


def finish_run(
    transaction: Transaction,
    tenant: str,
    run: str,
    *,
    status: RunStatus,
    content: str | None,
    content_truncated: bool,
    error: str | None,
    session_revision: int,
    at: datetime,
) -> None:
    """Write how the run ended."""
    parameters = {
        "tenant": tenant,
        "run": run,
        "to": status.value,
        "set_content": content,
        "truncated": content_truncated,
        "set_error": error,
        "revision": session_revision,
        "at": at,
    }
    transaction.run(_FINISH, parameters)


def pause_run(
    transaction: Transaction, tenant: str, run: str, *, question: str, until: datetime | None, used_seconds: float
) -> None:
    """Take the run off its worker until an answer comes."""
    parameters = {"tenant": tenant, "run": run, "ask": question, "until": until, "used": used_seconds}
    transaction.run(_PAUSE, parameters)


def requeue_run(transaction: Transaction, tenant: str, run: str, *, recoveries: int, used_seconds: float) -> None:
    """Make a run that was running or paused ready to be claimed again."""
    transaction.run(_REQUEUE, {"tenant": tenant, "run": run, "deaths": recoveries, "used": used_seconds})


def request_cancel(transaction: Transaction, tenant: str, run: str, at: datetime) -> None:
    """Have the run stopped by whoever executes it."""
    transaction.run(_REQUEST_CANCEL, {"tenant": tenant, "run": run, "at": at})


def cancels_for(transaction: Transaction, tenants: list[str], worker: str) -> list[RunRow]:
    """The worker's runs that are to be stopped."""
    return [RunRow.of(row) for row in _rows_of(transaction, _CANCELS, tenants, {"worker": worker})]


def runs_under(transaction: Transaction, tenants: list[str], worker: str) -> list[tuple[str, str]]:
    """The tenants and ids of the runs that the worker has, in the order of the ids."""
    rows = _rows_of(transaction, _UNDER, tenants, {"worker": worker})
    return [(row["tenant_id"], row["run_id"]) for row in rows]


def overdue_pauses(transaction: Transaction, tenants: list[str], at: datetime) -> list[RunRow]:
    """Paused runs that have waited long enough."""
    return [RunRow.of(row) for row in _rows_of(transaction, _OVERDUE, tenants, {"at": at})]


def _rows_of(
    transaction: Transaction, statement: Statement, tenants: list[str], parameters: dict[str, Any]
) -> list[Record]:
    """The rows of all these tenants. On SQLite one is asked for after the other: a list keeps it from the index."""
    if transaction.dialect != "sqlite":
        return transaction.all(statement, parameters | {"tenants": tenants})
    return [row for tenant in tenants for row in transaction.all(statement, parameters | {"tenants": tenant})]


def next_queued_run(transaction: Transaction, tenant: str, session: str, *, after: int) -> RunRow | None:
    """The run that waits longest for its turn in the session, of those that came after one, by its ordinal."""
    row = transaction.one(_NEXT, {"tenant": tenant, "session": session, "after": after})
    return None if row is None else RunRow.of(row)


def queue_position(transaction: Transaction, run: RunRow) -> int | None:
    """The place of a queued run among those that wait for the session's turn, from 1; None when it has the turn."""
    parameters = {"tenant": run.tenant_id, "session": run.session_id, "upto": run.ordinal}
    counted = transaction.one(_POSITION, parameters)
    return (counted or {})["place"] or None


def runs_with_status(transaction: Transaction, tenant: str, status: RunStatus) -> list[RunRow]:
    """All runs of a status that few have at a time."""
    rows = transaction.all(_BY_STATUS, {"tenant": tenant, "with": status.value})
    return [RunRow.of(row) for row in rows]


def runs_since(transaction: Transaction, tenant: str, session: str, *, ordinal: int) -> list[RunRow]:
    """The session's runs that arrived after one, in their order."""
    rows = transaction.all(_SINCE, {"tenant": tenant, "session": session, "after": ordinal})
    return [RunRow.of(row) for row in rows]


def live_runs(transaction: Transaction, tenant: str, session: str) -> list[RunRow]:
    """The session's runs that have not ended, in their order."""
    return [RunRow.of(row) for row in transaction.all(_LIVE, {"tenant": tenant, "session": session})]


def runs_with_ordinals(transaction: Transaction, tenant: str, session: str, ordinals: list[int]) -> list[RunRow]:
    """Some of the session's runs, by their numbers."""
    rows = transaction.all(_WITH_ORDINALS, {"tenant": tenant, "session": session, "ordinals": ordinals})
    return [RunRow.of(row) for row in rows]


def ready_runs(transaction: Transaction, tenant: str) -> list[RunRow]:
    """Queued runs that have their session's turn."""
    return [RunRow.of(row) for row in transaction.all(_READY, {"tenant": tenant})]


def list_runs(
    transaction: Transaction, tenant: str, *, filters: dict[str, Any], before: str | None, limit: int
) -> list[RunRow]:
    """Runs with the columns given, newest first, those made before the cursor's."""
    parameters = {"tenant": tenant, "before": before, "count": limit} | filters
    if before is None:
        del parameters["before"]
    return [RunRow.of(row) for row in transaction.all(_list_of(tuple(filters), paged=before is not None), parameters)]


@cache
def _list_of(filters: tuple[str, ...], *, paged: bool) -> Statement:
    """Compiled once for each choice of filters."""
    statement = select(_runs).where(_runs.c.tenant_id == bindparam("tenant"))
    for column in filters:
        statement = statement.where(_runs.c[column] == bindparam(column))
    if paged:
        statement = statement.where(_runs.c.run_id < bindparam("before"))
    return Statement(statement.order_by(_runs.c.run_id.desc()).limit(bindparam("count", type_=Integer)))
