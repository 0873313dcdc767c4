"""The rows of sessions."""

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Integer, Text, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import RunTable, SessionRow, SessionTable, table_of
from app.workflow.status import RunStatus

_sessions = table_of(SessionTable)
_runs = table_of(RunTable)
_KEY = (_sessions.c.tenant_id == bindparam("tenant")) & (_sessions.c.session_id == bindparam("session"))
_GET = Statement(select(_sessions).where(_KEY))
# Against other writers, but not against the look that a change of one of its runs takes at the session's key.
_LOCK = Statement(select(_sessions).where(_KEY).with_for_update(key_share=True))
_FENCE = Statement(
    select(_sessions)
    .join_from(
        _runs, _sessions, (_sessions.c.tenant_id == _runs.c.tenant_id) & (_sessions.c.session_id == _runs.c.session_id)
    )
    .where(
        _runs.c.tenant_id == bindparam("tenant"),
        _runs.c.run_id == bindparam("run"),
        _runs.c.status == RunStatus.running.value,
        _runs.c.attempt == bindparam("mine"),
    )
    .with_for_update(key_share=True, of=[_runs, _sessions])
)
_DELETE = Statement(delete(_sessions).where(_KEY))
_INSERT = Statement(
    {
        "sqlite": sqlite_insert(_sessions).on_conflict_do_nothing().returning(_sessions.c.session_id),
        "postgresql": postgresql_insert(_sessions).on_conflict_do_nothing().returning(_sessions.c.session_id),
    }
)
_NEW: dict[str, Any] = {"sqlite": sqlite_insert(_sessions), "postgresql": postgresql_insert(_sessions)}
_ARRIVE = Statement(
    {
        dialect: new.on_conflict_do_update(
            index_elements=["tenant_id", "session_id"],
            set_={
                "run_count": _sessions.c.run_count + 1,
                "active_run_id": func.coalesce(_sessions.c.active_run_id, new.excluded.active_run_id),
                "updated_at": new.excluded.updated_at,
            },
        ).returning(_sessions)
        for dialect, new in _NEW.items()
    }
)
_SAVE = Statement(
    update(_sessions)
    .where(_KEY)
    .values(
        revision=bindparam("to"),
        snapshot_cost=bindparam("cost"),
        active_run_id=bindparam("active"),
        updated_at=bindparam("at"),
    )
)


def get_session(transaction: Transaction, tenant: str, session: str) -> SessionRow | None:
    """The session, or None."""
    row = transaction.one(_GET, {"tenant": tenant, "session": session})
    return None if row is None else SessionRow.of(row)


def lock_session(transaction: Transaction, tenant: str, session: str) -> SessionRow | None:
    """The session, locked until the transaction ends: whatever changes a session or its queue begins here."""
    row = transaction.one(_LOCK, {"tenant": tenant, "session": session})
    return None if row is None else SessionRow.of(row)


def lock_session_of(transaction: Transaction, tenant: str, run: str, *, attempt: int) -> SessionRow | None:
    """The fence: the session of a running run, both locked in this order; None when the run is at another attempt."""
    record = transaction.one(_FENCE, {"tenant": tenant, "run": run, "mine": attempt})
    return None if record is None else SessionRow.of(record)


def insert_session(transaction: Transaction, row: SessionRow) -> bool:
    """Add the session; False when there is one of that id."""
    return transaction.one(_INSERT, row.values) is not None


def arrive(transaction: Transaction, row: SessionRow) -> SessionRow:
    """Count a run that arrives, and give it the turn of a free session; the session, made from the row if it is new.

    It is locked until the transaction ends.
    """
    record = transaction.one(_ARRIVE, row.values)
    assert record is not None  # it is there now
    return SessionRow.of(record)


def save_session(transaction: Transaction, row: SessionRow) -> None:
    """Write the locked session's revision, and who has its turn."""
    parameters = {
        "tenant": row.tenant_id,
        "session": row.session_id,
        "to": row.revision,
        "cost": row.snapshot_cost,
        "active": row.active_run_id,
        "at": row.updated_at,
    }
    transaction.run(_SAVE, parameters)


def update_session(transaction: Transaction, tenant: str, session: str, values: dict[str, Any]) -> None:
    """Set columns of the session."""
    parameters = {f"to_{column}": value for column, value in values.items()}
    transaction.run(_update_of(tuple(values)), {"tenant": tenant, "session": session} | parameters)


def delete_session(transaction: Transaction, tenant: str, session: str) -> None:
    """Remove the session, and with it its revisions and runs."""
    transaction.run(_DELETE, {"tenant": tenant, "session": session})


def list_sessions(
    transaction: Transaction,
    tenant: str,
    *,
    filters: dict[str, str],
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[SessionRow]:
    """Sessions with the columns given, newest first, those made before the cursor's."""
    parameters: dict[str, Any] = {"tenant": tenant, "count": limit} | filters
    if before is not None:
        parameters |= {"before_at": before[0], "before_id": before[1]}
    rows = transaction.all(_list_of(tuple(filters), paged=before is not None), parameters)
    return [SessionRow.of(row) for row in rows]


@cache
def _update_of(columns: tuple[str, ...]) -> Statement:
    """Compiled once for each choice of columns."""
    values = {column: bindparam(f"to_{column}", type_=_sessions.c[column].type) for column in columns}
    return Statement(update(_sessions).where(_KEY).values(values))


@cache
def _list_of(filters: tuple[str, ...], *, paged: bool) -> Statement:
    """Compiled once for each choice of filters."""
    statement = select(_sessions).where(_sessions.c.tenant_id == bindparam("tenant"))
    for column in filters:
        statement = statement.where(_sessions.c[column] == bindparam(column))
    if paged:
        before = tuple_(bindparam("before_at", type_=_sessions.c.created_at.type), bindparam("before_id", type_=Text))
        statement = statement.where(tuple_(_sessions.c.created_at, _sessions.c.session_id) < before)
    newest = _sessions.c.created_at.desc(), _sessions.c.session_id.desc()
    return Statement(statement.order_by(*newest).limit(bindparam("count", type_=Integer)))
