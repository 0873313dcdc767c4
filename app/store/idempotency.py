"""The keys of requests that start runs."""

from datetime import datetime

from sqlalchemy import bindparam, delete, insert, select

from app.store.database import Transaction
from app.store.tables import IdempotencyRow, IdempotencyTable, table_of

_keys = table_of(IdempotencyTable)
_GET = select(_keys).where(_keys.c.tenant_id == bindparam("tenant"), _keys.c.key == bindparam("name"))
_INSERT = insert(_keys)
_EXPIRE = delete(_keys).where(_keys.c.created_at < bindparam("before"))


def get_key(transaction: Transaction, tenant: str, key: str) -> IdempotencyRow | None:
    """What the key was used for, or None."""
    row = transaction.execute(_GET, {"tenant": tenant, "name": key}).one_or_none()
    return None if row is None else IdempotencyRow.of(row)


def insert_key(transaction: Transaction, row: IdempotencyRow) -> None:
    """Remember the key."""
    transaction.execute(_INSERT, row.model_dump())


def delete_keys(transaction: Transaction, *, before: datetime) -> int:
    """Forget keys that are older; how many."""
    return transaction.execute(_EXPIRE, {"before": before}).rowcount
