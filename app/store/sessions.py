"""The rows of sessions."""

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.tables import SessionRow, SessionTable, table_of

_sessions = table_of(SessionTable)
_KEY = (_sessions.c.tenant_id == bindparam("tenant")) & (_sessions.c.session_id == bindparam("session"))
_GET = select(_sessions).where(_KEY)
_LOCK = _GET.with_for_update()
_DELETE = delete(_sessions).where(_KEY)
_INSERT = {
    "sqlite": sqlite_insert(_sessions).on_conflict_do_nothing().returning(_sessions.c.session_id),
    "postgresql": postgresql_insert(_sessions).on_conflict_do_nothing().returning(_sessions.c.session_id),
}
_ACCEPT = (
    update(_sessions)
    .where(_KEY)
    .values(run_count=bindparam("count"), active_run_id=bindparam("active"), updated_at=bindparam("at"))
)
_MOVE_ON = update(_sessions).where(_KEY).values(active_run_id=bindparam("active"))
_REVISE = (
    update(_sessions)
    .where(_KEY)
    .values(revision=bindparam("to"), snapshot_cost=bindparam("cost"), updated_at=bindparam("at"))
)


def get_session(transaction: Transaction, tenant: str, session: str) -> SessionRow | None:
    """The session, or None."""
    row = transaction.execute(_GET, {"tenant": tenant, "session": session}).one_or_none()
    return None if row is None else SessionRow.of(row)


def lock_session(transaction: Transaction, tenant: str, session: str) -> SessionRow | None:
    """The session, locked until the transaction ends: whatever changes a session or its queue begins here."""
    row = transaction.execute(_LOCK, {"tenant": tenant, "session": session}).one_or_none()
    return None if row is None else SessionRow.of(row)


def insert_session(transaction: Transaction, row: SessionRow) -> bool:
    """Add the session; False when there is one of that id."""
    return transaction.execute(_INSERT[transaction.dialect], row.model_dump()).one_or_none() is not None


def accept_run(
    transaction: Transaction, tenant: str, session: str, *, run_count: int, active_run_id: str | None, at: datetime
) -> None:
    """Count a run that arrived, and give it its turn if the session was free."""
    parameters = {"tenant": tenant, "session": session, "count": run_count, "active": active_run_id, "at": at}
    transaction.execute(_ACCEPT, parameters)


def set_active_run(transaction: Transaction, tenant: str, session: str, active_run_id: str | None) -> None:
    """Give the turn to a run, or to none."""
    transaction.execute(_MOVE_ON, {"tenant": tenant, "session": session, "active": active_run_id})


def set_revision(
    transaction: Transaction, tenant: str, session: str, *, revision: int, snapshot_cost: int, at: datetime
) -> None:
    """Move the session to a revision of its state."""
    parameters = {"tenant": tenant, "session": session, "to": revision, "cost": snapshot_cost, "at": at}
    transaction.execute(_REVISE, parameters)


def update_session(transaction: Transaction, tenant: str, session: str, values: dict[str, Any]) -> None:
    """Set columns of the session."""
    transaction.execute(update(_sessions).where(_KEY).values(values), {"tenant": tenant, "session": session})


def delete_session(transaction: Transaction, tenant: str, session: str) -> None:
    """Remove the session, and with it its revisions and runs."""
    transaction.execute(_DELETE, {"tenant": tenant, "session": session})


def list_sessions(
    transaction: Transaction,
    tenant: str,
    *,
    filters: dict[str, str],
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[SessionRow]:
    """Sessions with the columns given, newest first, those made before the cursor's."""
    statement = select(_sessions).where(_sessions.c.tenant_id == tenant)
    for column, value in filters.items():
        statement = statement.where(_sessions.c[column] == value)
    order = tuple_(_sessions.c.created_at, _sessions.c.session_id)
    if before is not None:
        statement = statement.where(order < tuple_(*before))
    statement = statement.order_by(_sessions.c.created_at.desc(), _sessions.c.session_id.desc()).limit(limit)
    return [SessionRow.of(row) for row in transaction.execute(statement)]
