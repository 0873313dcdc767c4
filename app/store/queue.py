"""What waits: the queue over all sessions and tenants, as an operator sees it."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, func, literal_column, select

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import RunTable, table_of
from app.workflow.status import RunStatus

_runs = table_of(RunTable)
# A literal: what is a parameter could be any status, so that the index of runs that wait would not serve it.
_QUEUED = _runs.c.status == literal_column(f"'{RunStatus.queued.value}'")
_COUNT = Statement(
    select(func.count().label("waiting")).select_from(
        select(_runs.c.created_at).where(_QUEUED).order_by(_runs.c.created_at).limit(bindparam("most")).subquery()
    )
)
_OLDEST = Statement(select(_runs.c.created_at).where(_QUEUED).order_by(_runs.c.created_at).limit(1))

_OF_A_TENANT = Statement(
    select(func.count().label("waiting")).select_from(
        select(_runs.c.run_id)
        .where(_runs.c.tenant_id == bindparam("tenant"), _QUEUED)
        .order_by(_runs.c.session_id, _runs.c.ordinal)
        .limit(bindparam("most"))
        .subquery()
    )
)


class Queue(NamedTuple):
    """How many runs wait, up to the number asked for, and when the oldest of them came."""

    waiting: int
    oldest_at: datetime | None


def look_at_queue(transaction: Transaction, *, at_most: int) -> Queue:
    """The queue; no more of it is counted than asked for."""
    counted = transaction.one(_COUNT, {"most": at_most}) or {"waiting": 0}
    oldest = transaction.one(_OLDEST, {})
    return Queue(counted["waiting"], None if oldest is None else oldest["created_at"])


def count_queued(transaction: Transaction, tenant: str, *, at_most: int) -> int:
    """How many runs of the tenant wait; no more of them are counted than asked for."""
    counted = transaction.one(_OF_A_TENANT, {"tenant": tenant, "most": at_most})
    return 0 if counted is None else counted["waiting"]
