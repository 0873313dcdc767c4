"""The rows of API keys."""

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Integer, bindparam, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement, among
from app.store.tables import KeyRow, KeyTable, table_of

_keys = table_of(KeyTable)
_ANY = Statement(select(_keys.c.key_id).limit(1))
_OF_ID = _keys.c.key_id == bindparam("key")
_GET = Statement(select(_keys).where(_OF_ID))
_INSERT = Statement(
    {
        "sqlite": sqlite_insert(_keys).on_conflict_do_nothing().returning(_keys.c.key_id),
        "postgresql": postgresql_insert(_keys).on_conflict_do_nothing().returning(_keys.c.key_id),
    }
)
_REVOKE = Statement(
    update(_keys)
    .where(_OF_ID)
    .values(revoked_at=func.coalesce(_keys.c.revoked_at, bindparam("at", type_=_keys.c.revoked_at.type)))
)
_EXPIRE = Statement(update(_keys).where(_OF_ID).values(expires_at=bindparam("at")))
_VALID = Statement(
    {
        dialect: select(_keys.c.key_id).where(
            these,
            _keys.c.revoked_at.is_(None),
            or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > bindparam("at", type_=_keys.c.expires_at.type)),
        )
        for dialect, these in among(_keys.c.key_id, "keys").items()
    }
)
_USED = Statement(
    {
        dialect: update(_keys).where(these).values(last_used_at=bindparam("at", type_=_keys.c.last_used_at.type))
        for dialect, these in among(_keys.c.key_id, "keys").items()
    }
)


_ERASE = Statement(
    update(_keys)
    .where(_keys.c.tenant_id == bindparam("tenant"), _keys.c.user_id == bindparam("owner"))
    .values(
        name="erased",
        user_id=None,
        digest="",
        revoked_at=func.coalesce(_keys.c.revoked_at, bindparam("at", type_=_keys.c.revoked_at.type)),
    )
    .returning(_keys.c.key_id)
)


def any_key(transaction: Transaction) -> bool:
    """Whether there is a key, be it one that no longer opens anything."""
    return transaction.one(_ANY, {}) is not None


def get_key(transaction: Transaction, key: str) -> KeyRow | None:
    """The key, or None."""
    row = transaction.one(_GET, {"key": key})
    return None if row is None else KeyRow.of(row)


def insert_key(transaction: Transaction, row: KeyRow) -> bool:
    """Add the key; False when there is one of that id."""
    return transaction.one(_INSERT, row.values) is not None


def revoke_key(transaction: Transaction, key: str, *, at: datetime) -> None:
    """Have the key open nothing any more."""
    transaction.run(_REVOKE, {"key": key, "at": at})


def expire_key(transaction: Transaction, key: str, *, at: datetime) -> None:
    """Have the key end at a time."""
    transaction.run(_EXPIRE, {"key": key, "at": at})


def valid_keys(transaction: Transaction, keys: Collection[str], *, at: datetime) -> set[str]:
    """Those of the keys that are neither revoked nor expired."""
    return {row["key_id"] for row in transaction.all(_VALID, {"keys": list(keys), "at": at})}


def note_use(transaction: Transaction, keys: Collection[str], *, at: datetime) -> None:
    """Remember when the keys were used."""
    transaction.run(_USED, {"keys": list(keys), "at": at})


def erase_keys_of(transaction: Transaction, tenant: str, user: str, *, at: datetime) -> list[str]:
    """Have the keys that are bound to a user open nothing, and say nothing of the user; their ids.

    The rows stay: without any key, there would be no authentication.
    """
    return [row["key_id"] for row in transaction.all(_ERASE, {"tenant": tenant, "owner": user, "at": at})]


def list_keys(
    transaction: Transaction, tenant: str | None, *, before: tuple[datetime, str] | None, limit: int
) -> list[KeyRow]:
    """Keys of a tenant, or of all of them, newest first, those made before the cursor's."""
    parameters: dict[str, Any] = {"count": limit}
    if tenant is not None:
        parameters["tenant"] = tenant
    if before is not None:
        parameters |= {"moment": before[0], "key": before[1]}
    rows = transaction.all(_list_of(of_tenant=tenant is not None, paged=before is not None), parameters)
    return [KeyRow.of(row) for row in rows]


@cache
def _list_of(*, of_tenant: bool, paged: bool) -> Statement:
    """Compiled once for each kind of list."""
    statement = select(_keys)
    if of_tenant:
        statement = statement.where(_keys.c.tenant_id == bindparam("tenant"))
    if paged:
        place = tuple_(bindparam("moment", type_=_keys.c.created_at.type), bindparam("key", type_=_keys.c.key_id.type))
        statement = statement.where(tuple_(_keys.c.created_at, _keys.c.key_id) < place)
    statement = statement.order_by(_keys.c.created_at.desc(), _keys.c.key_id.desc())
    return Statement(statement.limit(bindparam("count", type_=Integer)))
