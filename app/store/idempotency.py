"""The keys of requests that start runs."""

from datetime import datetime

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import IdempotencyRow, IdempotencyTable, RunTable, table_of

_keys = table_of(IdempotencyTable)
_runs = table_of(RunTable)
_OF_KEY = (_keys.c.tenant_id == bindparam("tenant")) & (_keys.c.key == bindparam("name"))
_GET = Statement(select(_keys).where(_OF_KEY))
_INSERT = Statement(
    {
        "sqlite": sqlite_insert(_keys).on_conflict_do_nothing().returning(_keys.c.key),
        "postgresql": postgresql_insert(_keys).on_conflict_do_nothing().returning(_keys.c.key),
    }
)
_DELETE = Statement(delete(_keys).where(_OF_KEY))
_DELETE_OF_SESSION = Statement(
    delete(_keys).where(
        _keys.c.tenant_id == bindparam("tenant"),
        _keys.c.run_id.in_(
            select(_runs.c.run_id).where(
                _runs.c.tenant_id == bindparam("tenant"), _runs.c.session_id == bindparam("session")
            )
        ),
    )
)
_EXPIRE = Statement(delete(_keys).where(_keys.c.created_at < bindparam("before", type_=_keys.c.created_at.type)))


def get_key(transaction: Transaction, tenant: str, key: str) -> IdempotencyRow | None:
    """What the key was used for, or None."""
    row = transaction.one(_GET, {"tenant": tenant, "name": key})
    return None if row is None else IdempotencyRow.of(row)


def insert_key(transaction: Transaction, row: IdempotencyRow) -> bool:
    """Take the key; False when somebody has it, after waiting for a transaction that is just taking it."""
    return transaction.one(_INSERT, row.values) is not None


def delete_key(transaction: Transaction, tenant: str, key: str) -> None:
    """Forget one key."""
    transaction.run(_DELETE, {"tenant": tenant, "name": key})


def delete_session_keys(transaction: Transaction, tenant: str, session: str) -> None:
    """Forget the keys of a session's runs."""
    transaction.run(_DELETE_OF_SESSION, {"tenant": tenant, "session": session})


def delete_keys(transaction: Transaction, *, before: datetime) -> None:
    """Forget keys that are older."""
    transaction.run(_EXPIRE, {"before": before})
