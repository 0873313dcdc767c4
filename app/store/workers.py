"""The rows of workers."""

from sqlalchemy import bindparam, delete, func, insert, update

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import WorkerRow, WorkerTable, table_of

_workers = table_of(WorkerTable)
_INSERT = Statement(insert(_workers))
# The database's own clock, so that machines need not agree on the time.
_BEAT = Statement(update(_workers).where(_workers.c.worker_id == bindparam("worker")).values(heartbeat_at=func.now()))
_DELETE_ALL = Statement(delete(_workers))
_DELETE = Statement(delete(_workers).where(_workers.c.worker_id == bindparam("worker")))


def insert_worker(transaction: Transaction, row: WorkerRow) -> None:
    """Add the worker."""
    transaction.run(_INSERT, row.values)
    beat(transaction, row.worker_id)


def beat(transaction: Transaction, worker: str) -> None:
    """Say that the worker lives."""
    transaction.run(_BEAT, {"worker": worker})


def delete_all_workers(transaction: Transaction) -> None:
    """Remove every worker: where one process has the database, all that were before it are dead."""
    transaction.run(_DELETE_ALL, {})


def delete_worker(transaction: Transaction, worker: str) -> None:
    """Remove the worker."""
    transaction.run(_DELETE, {"worker": worker})
